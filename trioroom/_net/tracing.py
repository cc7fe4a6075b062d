"""OpenTelemetry: spans around the hooks of rooms and around publications.

A server that is not traced has none of this: neither this module nor OpenTelemetry is imported, and each hook is the
method of its class. Of one that is, each room gets wrapped hooks as it opens, as attributes of the object.

Hooks begin traces of their own, for what calls them has been running since the server began and would be one trace
without end; where something else is current, such as the hook that put a member out, it is linked. What a hook does,
publications among it, is below its span.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode

from trioroom._core.causes import first_of
from trioroom._net.failures import refusal_in
from trioroom._net.hub import Hub
from trioroom._wire.message import Data, Message
from trioroom.errors import JoinRefused
from trioroom.member import Member
from trioroom.room import Room

if TYPE_CHECKING:
    import trio
    from opentelemetry.trace import Link, Span, TracerProvider

    from trioroom._core.history import Position
    from trioroom._core.routes import Routes
    from trioroom._net.active_room import ActiveRoom
    from trioroom._net.authentication import Authentication
    from trioroom.backplane.base import Backplane
    from trioroom.settings import Settings

Attributes = dict[str, str | int | bool]

HOOKS = {
    "authorize": SpanKind.INTERNAL,
    "on_open": SpanKind.INTERNAL,
    "on_join": SpanKind.INTERNAL,
    "on_message": SpanKind.CONSUMER,
    "on_call": SpanKind.SERVER,
    "on_leave": SpanKind.INTERNAL,
    "on_close": SpanKind.INTERNAL,
}
"""What is traced, and as what."""
_OPERATIONS = {SpanKind.CONSUMER: "process", SpanKind.PRODUCER: "send"}  # words of OpenTelemetry's conventions
_NO_CONTEXT = Context()


class TracedHub(Hub):
    """A hub whose rooms are traced, and what is published from outside of them too."""

    def __init__(
        self,
        routes: Routes[type[Room]],
        backplane: Backplane,
        settings: Settings,
        nursery: trio.Nursery,
        authentication: Authentication | None,
        provider: TracerProvider,
    ) -> None:
        super().__init__(routes, backplane, settings, nursery, authentication)
        self._tracing = Tracing(provider)

    async def publish(self, name: str, data: Data, key: str | None, publication_id: str | None) -> Position | None:
        """See `Hub`."""
        with self._tracing.publication(name, data, publication_id):
            return await super().publish(name, data, key, publication_id)

    def _open(self, name: str) -> ActiveRoom:
        active = super()._open(name)
        self._tracing.wrap(active.room)  # its task has not begun yet
        return active


class Tracing:
    """Makes the spans."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("trioroom", version("trioroom"))

    def wrap(self, room: Room) -> None:
        """Trace the hooks that ``room`` overrides, ``on_message`` in any case, and what it publishes."""
        for name in HOOKS:
            if name == "on_message" or getattr(type(room), name) is not getattr(Room, name):
                setattr(room, name, self._traced(room, name, getattr(room, name)))
        publish = room.publish

        async def traced_publish(data: Data, *args: Any, **options: Any) -> None:
            with self.publication(room.name, data, options.get("publication_id")):
                await publish(data, *args, **options)

        room.publish = traced_publish  # type: ignore[method-assign]  # of this object alone

    def _traced(self, room: Room, name: str, hook: Callable[..., Awaitable[object]]) -> Callable[..., object]:
        cls, kind = type(room), HOOKS[name]
        title = f"{name} {cls.__name__}"
        always: Attributes = {"code.function.name": f"{cls.__module__}.{cls.__qualname__}.{name}"}

        async def traced_hook(*args: Any) -> object:
            ambient = trace.get_current_span().get_span_context()
            links = [trace.Link(ambient)] if ambient.is_valid else None
            with self._span(title, kind, room.name, name, _NO_CONTEXT, links) as span:
                if span.is_recording():
                    span.set_attributes({**always, **_attributes_of(args)})
                return await hook(*args)

        return traced_hook

    @contextmanager
    def publication(self, room: str, data: Data, publication_id: str | None) -> Iterator[None]:
        """A span around handing ``data`` to the backplane; below the one that is current."""
        with self._span("publish", SpanKind.PRODUCER, room, "publish", None, None) as span:
            if span.is_recording():
                span.set_attributes(_attributes_of_message(data, publication_id))
            yield

    @contextmanager
    def _span(
        self, title: str, kind: SpanKind, room: str, operation: str, parent: Context | None, links: list[Link] | None
    ) -> Iterator[Span]:
        attributes: Attributes = {"messaging.system": "trioroom", "messaging.destination.name": room}
        if kind in _OPERATIONS:
            attributes["messaging.operation.type"] = _OPERATIONS[kind]
            attributes["messaging.operation.name"] = operation
        with self._tracer.start_as_current_span(
            title, parent, kind, attributes, links, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as exc:
                _note(span, exc)
                raise


def _note(span: Span, exc: BaseException) -> None:
    """How it ended. A refusal is what ``authorize`` is for, or an answer, and a cancellation nobody's fault."""
    error = exc.subgroup(Exception) if isinstance(exc, BaseExceptionGroup) else exc
    if isinstance(error, JoinRefused):
        span.set_attribute("trioroom.refused", error.reason)
    elif isinstance(error, Exception) and (refusal := refusal_in(error)) is not None:
        span.set_attribute("trioroom.refused", refusal.message)
    elif isinstance(error, Exception):
        span.set_attribute("error.type", type(first_of(error)).__qualname__)
        span.record_exception(error)
        span.set_status(StatusCode.ERROR, f"{type(error).__name__}: {error}")
    else:
        span.set_attribute("trioroom.cancelled", True)


def _attributes_of(args: tuple[object, ...]) -> Attributes:
    """Of what a hook got: a member, a message, the reason of its leaving."""
    attributes: Attributes = {}
    for arg in args:
        match arg:
            case Member():
                attributes["trioroom.member.id"] = arg.id
            case Message():
                attributes |= _attributes_of_message(arg.data, arg.publication_id)
            case str():
                attributes["trioroom.reason"] = arg
    return attributes


def _attributes_of_message(data: Data, publication_id: str | None) -> Attributes:
    attributes: Attributes = {}
    if (size := _size_of(data)) is not None:
        attributes["messaging.message.body.size"] = size
    if publication_id is not None:
        attributes["messaging.message.id"] = publication_id
    return attributes


def _size_of(data: Data) -> int | None:
    """In bytes; None of what cannot be published."""
    if isinstance(data, bytes):
        return len(data)
    try:
        return len(data.encode() if isinstance(data, str) else msgspec.json.encode(data))
    except (TypeError, ValueError):
        return None
