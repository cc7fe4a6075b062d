"""Spans, as the SDK of OpenTelemetry exports them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextvars import Context
from functools import partial

import pytest
import trio
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from trio.testing import MockClock

from trioroom import App, BackplaneUnavailable, ConnectionClosed, JoinRefused, Member, Message, RequestRefused, Room
from trioroom._net.tracing import HOOKS
from trioroom._wire.message import Data
from trioroom.testing import open_peer, open_test_server, open_v1_peer


class Chat(Room):
    async def authorize(self, member: Member) -> None:
        if member.request.query == "no":
            raise JoinRefused("not you")

    async def on_open(self) -> None:
        await trio.lowlevel.checkpoint()

    async def on_join(self, member: Member) -> str:
        return "welcome"

    async def on_message(self, member: Member, message: Message) -> None:
        match message.data:
            case "fail":
                raise ValueError("it\nfailed")
            case "group":
                raise ExceptionGroup("several", [KeyError("first"), ValueError("second")])
            case "unavailable":
                raise BackplaneUnavailable("no broker")
            case "out":
                member.leave("go")
            case "refuse":
                raise RequestRefused("unkind", "be kind")
            case "refuse in a task":
                raise ExceptionGroup("of a nursery", [RequestRefused("unkind", "be kind")])
            case "refused elsewhere":
                raise RequestRefused("unkind", "be kind", by_peer=True)
            case _:
                await self.publish(message.data, sender=member, publication_id=message.publication_id)

    async def on_call(self, member: Member, message: Message) -> object:
        if message.data == "wait":
            await trio.sleep_forever()
        return get_current_span().get_span_context().is_valid

    async def on_leave(self, member: Member, reason: str) -> None: ...

    async def on_close(self) -> None: ...


class Silent(Room):
    """Overrides nothing."""


class Traces:
    """A provider, and the spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def names(self) -> list[str]:
        return [span.name for span in self.spans()]

    def find(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.spans() if span.name == name]
        return span


@pytest.fixture
def traces() -> Traces:
    return Traces()


@pytest.fixture
def app() -> App:
    app = App()
    app.route("chat/{name}", Chat)
    app.route("silent", Silent)
    return app


async def test_every_hook_is_a_span_of_a_trace_of_its_own(traces: Traces, app: App) -> None:
    async with open_test_server(app, tracer_provider=traces.provider) as server, open_v1_peer(server) as v1:
        await v1.join("chat/a")
        assert (await v1.request("call", room="chat/a", data="x"))["data"] is True
        await v1.request("publish", room="chat/a", data="hello", publication_id="p1")
        await v1.request("leave", room="chat/a")
    assert {name.partition(" ")[0] for name in traces.names()} == {*HOOKS, "publish"}
    assert len({span.context.trace_id for span in traces.spans() if span.context}) == len(HOOKS)
    for name, kind in HOOKS.items():
        span = traces.find(f"{name} Chat")
        assert (span.kind, span.status.status_code, span.parent) == (kind, StatusCode.UNSET, None)
        assert span.attributes is not None
        assert span.attributes["messaging.system"] == "trioroom"
        assert span.attributes["messaging.destination.name"] == "chat/a"
        assert span.attributes["code.function.name"] == f"{Chat.__module__}.Chat.{name}"
        assert ("trioroom.member.id" in span.attributes) == (name not in ("on_open", "on_close"))
    left = traces.find("on_leave Chat").attributes
    assert left is not None
    assert left["trioroom.reason"] == "left"


async def test_publication_is_below_the_hook_that_made_it(traces: Traces, app: App) -> None:
    async with open_test_server(app, tracer_provider=traces.provider) as server, open_v1_peer(server) as v1:
        await v1.join("chat/a")
        await v1.request("publish", room="chat/a", data="grüße", publication_id="p1")
    hook, publication = traces.find("on_message Chat"), traces.find("publish")
    assert publication.parent is not None
    assert publication.parent == hook.context
    assert publication.kind is SpanKind.PRODUCER
    assert dict(publication.attributes or {}) == {
        "messaging.system": "trioroom",
        "messaging.destination.name": "chat/a",
        "messaging.operation.type": "send",
        "messaging.operation.name": "publish",
        "messaging.message.id": "p1",
        "messaging.message.body.size": 7,
    }
    assert hook.attributes is not None
    assert hook.attributes["messaging.operation.type"] == "process"
    assert hook.attributes["messaging.message.id"] == "p1"
    assert hook.attributes["messaging.message.body.size"] == 7


@pytest.mark.parametrize(("data", "size"), [("ab", 2), (b"abc", 3), ({"a": 1}, 7), (None, 4)])
async def test_publication_of_the_app_is_below_what_is_current_there(
    data: Data, size: int, traces: Traces, app: App
) -> None:
    tracer = traces.provider.get_tracer("test")
    async with open_test_server(app, tracer_provider=traces.provider) as server, open_peer(server, "/chat/a"):
        with tracer.start_as_current_span("request") as current:
            await app.publish("chat/a", data)
    publication = traces.find("publish")
    assert publication.parent == current.get_span_context()
    assert publication.attributes is not None
    assert publication.attributes["messaging.message.body.size"] == size


async def test_default_hooks_are_no_spans_but_for_messages(traces: Traces, app: App) -> None:
    async with open_test_server(app, tracer_provider=traces.provider) as server:
        async with open_peer(server, "/silent") as one, open_peer(server, "/silent") as two:
            await one.send("x")
            assert await two.receive() == "x"
        async with open_v1_peer(server) as v1:
            await v1.join("silent")
            assert (await v1.request("call", room="silent", data=1))["code"] == "unsupported"
    assert traces.names() == ["publish", "on_message Silent"]


@pytest.mark.parametrize(
    ("message", "code", "error_type", "status"),
    [
        ("fail", 1011, "ValueError", "ValueError: it\nfailed"),
        ("group", 1011, "KeyError", "ExceptionGroup: several (2 sub-exceptions)"),
        ("unavailable", 1013, "BackplaneUnavailable", "BackplaneUnavailable: no broker"),
    ],
)
async def test_failure_of_a_hook_is_recorded(
    message: str, code: int, error_type: str, status: str, traces: Traces, app: App
) -> None:
    async with open_test_server(app, tracer_provider=traces.provider) as server, open_peer(server, "/chat/a") as peer:
        await peer.receive()
        await peer.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            await peer.receive()
        assert closed.value.code == code
    span = traces.find("on_message Chat")
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == status
    assert span.attributes is not None
    assert span.attributes["error.type"] == error_type
    (event,) = span.events
    assert event.name == "exception"
    assert event.attributes is not None
    assert "test_tracing.py" in str(event.attributes["exception.stacktrace"])


async def test_refusal_is_no_error(traces: Traces, app: App) -> None:
    async with open_test_server(app, tracer_provider=traces.provider) as server:
        async with open_peer(server, "/chat/a?no") as peer:
            with pytest.raises(ConnectionClosed):
                await peer.receive()
    span = traces.find("authorize Chat")
    assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())
    assert span.attributes is not None
    assert span.attributes["trioroom.refused"] == "not you"
    assert "on_join Chat" not in traces.names()


@pytest.mark.parametrize("data", ["refuse", "refuse in a task"])
async def test_refused_message_is_no_error(traces: Traces, app: App, data: str, autojump_clock: MockClock) -> None:
    async with open_test_server(app, tracer_provider=traces.provider) as server, open_v1_peer(server) as v1:
        await v1.join("chat/a")
        assert (await v1.request("publish", room="chat/a", data=data))["code"] == "unkind"
    span = traces.find("on_message Chat")
    assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())
    assert span.attributes is not None
    assert span.attributes["trioroom.refused"] == "be kind"


async def test_what_a_client_in_the_hook_was_refused_is_an_error(
    traces: Traces, app: App, autojump_clock: MockClock
) -> None:
    async with open_test_server(app, tracer_provider=traces.provider) as server, open_v1_peer(server) as v1:
        await v1.join("chat/a")
        await v1.send({"type": "publish", "room": "chat/a", "data": "refused elsewhere"})
        with pytest.raises(ConnectionClosed, match="1011"):
            await v1.receive()
    span = traces.find("on_message Chat")
    assert span.status.status_code is StatusCode.ERROR


async def test_cancelled_call_is_no_error(traces: Traces, app: App, autojump_clock: MockClock) -> None:
    async with open_test_server(app, tracer_provider=traces.provider) as server, open_v1_peer(server) as v1:
        await v1.join("chat/a")
        assert (await v1.request("call", room="chat/a", data="wait", timeout=1.0))["code"] == "timeout"
    span = traces.find("on_call Chat")
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes is not None
    assert span.attributes["trioroom.cancelled"] is True


async def test_hook_that_another_one_causes_is_linked_to_it(traces: Traces, app: App) -> None:
    async with open_test_server(app, tracer_provider=traces.provider) as server, open_v1_peer(server) as v1:
        await v1.join("chat/a")
        await v1.send({"type": "publish", "room": "chat/a", "data": "out"})
        assert (await v1.receive())["type"] == "kicked"
    (link,) = traces.find("on_leave Chat").links
    assert link.context == traces.find("on_message Chat").context


@pytest.mark.parametrize("apart", [False, True])
async def test_task_of_a_hook_is_below_it_unless_started_without_its_context(apart: bool, traces: Traces) -> None:
    class Ticking(Room):
        async def on_open(self) -> None:
            start = partial(self.nursery.start_soon, self.tick)
            Context().run(start) if apart else start()

        async def on_join(self, member: Member) -> None:
            ticking.set()

        async def tick(self) -> None:
            await ticking.wait()
            await self.publish("tick")

    ticking = trio.Event()
    app = App()
    app.route("ticking", Ticking)
    async with open_test_server(app, tracer_provider=traces.provider) as server, open_peer(server, "/ticking") as peer:
        assert await peer.receive() == "tick"
    assert traces.find("publish").parent == (None if apart else traces.find("on_open Ticking").context)


async def test_sampler_decides_and_what_is_not_recorded_is_served_all_the_same(app: App) -> None:
    traces = Traces()
    unsampled = TracerProvider(sampler=ALWAYS_OFF)
    async with open_test_server(app, tracer_provider=unsampled) as server, open_peer(server, "/chat/a") as peer:
        await peer.receive()
        await peer.send("x")
        assert await peer.receive() == "x"
    assert traces.spans() == ()


async def test_overridden_publish_is_traced_once(traces: Traces) -> None:
    class Loud(Room):
        async def publish(self, data: object, *args: object, **options: object) -> None:
            await super().publish(str(data).upper())

        async def on_message(self, member: Member, message: Message) -> None:
            await self.publish(message.data)

    app = App()
    app.route("loud", Loud)
    async with open_test_server(app, tracer_provider=traces.provider) as server, open_peer(server, "/loud") as peer:
        await peer.send("x")
        assert await peer.receive() == "X"
    assert traces.names() == ["publish", "on_message Loud"]


async def test_rooms_of_a_server_that_is_not_traced_have_the_methods_of_their_class(app: App) -> None:
    rooms: list[Room] = []

    class Seen(Room):
        async def on_join(self, member: Member) -> None:
            rooms.append(self)

    app.route("seen", Seen)
    async with open_test_server(app) as server, open_peer(server, "/seen") as peer:
        await peer.send("x")
    assert not {*HOOKS, "publish"} & vars(rooms[0]).keys()


def test_opentelemetry_is_imported_only_when_it_is_used() -> None:
    program = "import sys, trioroom, trioroom.cli, trioroom.testing; print('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
