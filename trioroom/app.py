"""`App` (which rooms there are) and the server that runs it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import trio

from trioroom._core.api_key import ApiKey
from trioroom._core.networks import Networks
from trioroom._core.routes import Routes
from trioroom._core.statistics import ServerStatistics
from trioroom._net.accepted import AcceptedSockets
from trioroom._net.authentication import Authentication
from trioroom._net.dashboard import Dashboard
from trioroom._net.drain import retire
from trioroom._net.endpoints import Endpoints
from trioroom._net.entrance import Entrance, open_admission
from trioroom._net.gc_policy import server_gc_policy
from trioroom._net.handshake import Greeter
from trioroom._net.heartbeat import Heartbeat
from trioroom._net.http import HttpResponder
from trioroom._net.http_api import HttpApi
from trioroom._net.hub import Hub
from trioroom._net.listener import accept_until_cancelled, open_listeners, stop_accepting
from trioroom._net.metrics import Metrics
from trioroom._net.operator import ANSWER_TIMEOUT, Operator
from trioroom._net.overview import Overview
from trioroom._net.readiness import open_readiness
from trioroom._net.refusals import Refusals
from trioroom._net.snapshot import Snapshots
from trioroom._net.transport import StreamTransport
from trioroom._net.trio_websocket import serve_websocket_request
from trioroom._wire.forwarded import Forwarding
from trioroom.backplane.memory import MemoryBackplane
from trioroom.closecodes import CloseCode
from trioroom.room import Room, check_abilities, check_limits
from trioroom.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider
    from trio_websocket import WebSocketRequest

    from trioroom._core.revocation import Revocation
    from trioroom._net.siblings import Siblings
    from trioroom._wire.message import Data
    from trioroom.backplane.base import Backplane
    from trioroom.identity import Authenticate

_ANSWER_TIMEOUT = 5.0  # seconds an endpoint may take beyond what publishing may
RoomClass = TypeVar("RoomClass", bound=type[Room])


class App:
    """Which room class serves which names, and which files are served beside them.

    Args:
        authenticate: an async function that says who a peer is: it takes `trioroom.Credentials` and returns a
            `trioroom.Identity`, or None for a peer that may be anonymous, or raises `trioroom.AuthenticationRefused`.
            It is called for each opening handshake, and for each ``auth`` of v1. `trioroom.auth.JWTAuthenticator` is
            one for JSON Web Tokens. By default everybody comes in, and is anonymous.
    """

    def __init__(self, *, authenticate: Authenticate | None = None) -> None:
        if not (authenticate is None or callable(authenticate)):
            raise TypeError(f"authenticate={authenticate!r} must be an async function that takes Credentials")
        self._authenticate = authenticate
        self._routes: Routes[type[Room]] = Routes()
        self._static: list[tuple[str, Path]] = []
        self._backplane: Backplane | None = None
        self._operator: Operator | None = None  # of the server that runs it

    def route(self, pattern: str, room_class: type[Room]) -> None:
        """Serve rooms whose names match ``pattern``, such as ``chat/{name}``, with ``room_class``.

        The first pattern that matches wins. A plain connection names its room by the URL's path.

        Raises:
            TypeError: ``room_class`` is no subclass of `Room`, or one of its limits has the wrong type.
            ValueError: the pattern is malformed or taken, a limit is not positive, or a server runs this app on a
                backplane that cannot do what the class wants.
        """
        cls: object = room_class  # the type checker trusts its callers; we do not
        if not (isinstance(cls, type) and issubclass(cls, Room)):
            raise TypeError(f"route {pattern!r} needs a subclass of trioroom.Room, got {room_class!r}")
        check_limits(room_class)
        if self._backplane is not None:
            check_abilities(room_class, self._backplane)
        self._routes.add(pattern, room_class)

    def static(self, prefix: str, directory: str | Path) -> None:
        """Serve the files under ``directory`` at ``prefix``, with ``index.html`` for the prefix itself.

        Raises:
            ValueError: the prefix does not begin and end with a slash, or the directory is not there.
        """
        path = Path(directory).resolve()
        if not (prefix.startswith("/") and prefix.endswith("/")):
            raise ValueError(f"static prefix {prefix!r} must begin and end with '/'")
        if not path.is_dir():
            raise ValueError(f"static directory {str(path)!r} is not there")
        self._static.append((prefix, path))

    async def publish(
        self, room: str, data: Data, *, key: str | None = None, publication_id: str | None = None
    ) -> None:
        """Send ``data`` to every member of ``room`` on every node, from outside of the room.

        Awaits while the room's fan-out on this node is behind, as `Room.publish` does.

        Args:
            key: as with `Room.publish`.
            publication_id: likewise.
        Raises:
            RuntimeError: no server runs this app now.
            TypeError: ``data`` is no text, bytes or JSON value.
            ValueError: no room may have that name, or ``publication_id`` is too short or too long.
            BackplaneUnavailable: the broker cannot be reached, or the room has been behind for ``publish_timeout``.
        """
        await self._running("publish").hub.publish(room, data, key, publication_id)

    async def disconnect(
        self,
        *,
        user: str | None = None,
        connection: str | None = None,
        reason: str = "",
        close_code: int = CloseCode.DISCONNECTED,
        timeout: float = ANSWER_TIMEOUT,
    ) -> Revocation:
        """Close all connections of a user (`Member.user` in any room), or the one of a `Member.id`, on all nodes.

        Clients do not come back by themselves if ``close_code`` is below 4100. Who joins at this moment may slip
        through: first see that ``authorize`` refuses the user. A node that is out of touch does it when it is back,
        within 300 s, to connections made meanwhile too; others have ``timeout`` seconds to say what they did.

        Raises:
            ValueError: neither or both of ``user`` and ``connection``, or a code or reason that cannot be sent.
            BackplaneUnavailable: it has happened on this node; the broker cannot be reached, so call it again.
        """
        return await self._running("disconnect").disconnect(user, connection, reason, close_code, timeout)

    async def kick(self, room: str, user: str, *, reason: str = "", timeout: float = ANSWER_TIMEOUT) -> Revocation:
        """Put a user out of one room on all nodes, as `Member.leave` does; the rest is as with `disconnect`."""
        return await self._running("kick").kick(room, user, reason, timeout)

    def _running(self, method: str) -> Operator:
        if self._operator is None:
            raise RuntimeError(f"app.{method} needs a running server; open one with trioroom.open_server(app)")
        return self._operator


def check_rooms(app: App, backplane: Backplane) -> None:
    """Raise ValueError if a room class of ``app`` asks for what ``backplane`` cannot do."""
    for room_class in app._routes.targets():
        check_abilities(room_class, backplane)


class Server:
    """A running server; get it from `open_server`."""

    def __init__(
        self,
        greeter: Greeter,
        hub: Hub,
        overview: Overview,
        entrance: Entrance,
        accepted: AcceptedSockets,
        listeners: list[socket.socket],
        stop_listening: Callable[[], None],
    ) -> None:
        self.addresses: list[tuple[str, int]] = [listener.getsockname()[:2] for listener in listeners]
        """Host and port of each listening socket."""
        self._greeter = greeter
        self._hub = hub
        self._overview = overview
        self._entrance = entrance
        self._accepted = accepted
        self._stop_listening = stop_listening

    @property
    def port(self) -> int:
        """The port of the listening sockets; the one that was picked when 0 was asked for."""
        return self.addresses[0][1]

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context that new connections get; None if there is no TLS.

        Set another one to serve a renewed certificate: connections that are open stay as they are.

        Raises:
            ValueError: when set, it would begin or end TLS on a port that is in use.
        """
        return self._accepted.ssl_context

    @ssl_context.setter
    def ssl_context(self, ssl_context: ssl.SSLContext | None) -> None:
        if (ssl_context is None) != (self._accepted.ssl_context is None):
            raise ValueError("a server that runs cannot begin or end TLS; open another one")
        self._accepted.ssl_context = ssl_context

    @property
    def connection_count(self) -> int:
        """WebSocket connections that are open now."""
        return len(self._hub.connections)

    def statistics(self) -> ServerStatistics:
        """How many connections and rooms there are, what waits, and where the messages went."""
        return self._overview.statistics()

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one peer that came by other ways than the listener: TLS, a Unix socket, memory.

        Returns when the peer is gone; closes ``stream``. Cancelling closes with 1001.
        """
        await self._entrance.serve_transport(StreamTransport(stream))

    async def serve_websocket_request(self, request: WebSocketRequest) -> None:
        """Serve a peer of a trio-websocket server: call this in the handler you gave to ``serve_websocket``.

        The path or the subprotocol says what it wants, as with our own listener; what leads to no room
        is rejected with 404. Browsers get in when ``Settings.allowed_origins`` names where they come from.
        Returns when the peer is gone.
        """
        await serve_websocket_request(self._entrance, self._greeter, self._hub.settings, request)


@asynccontextmanager
async def open_server(
    app: App,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    settings: Settings | None = None,
    ssl_context: ssl.SSLContext | None = None,
    backplane: Backplane | None = None,
    reuse_port: bool = False,
    api_key: str | None = None,
    tracer_provider: TracerProvider | None = None,
    siblings: Siblings | None = None,
) -> AsyncIterator[Server]:
    """Run ``app`` while the context is open; port 0 picks a free one.

    Leaving the context drains: the server is not ready any more, accepting stops after
    ``settings.drain_delay``, peers are closed with 4101 at ``settings.reconnect_rate`` and may take
    ``settings.drain_timeout``. Cancelled, or left by an exception, it closes them with 1001 at once.
    Either way every task and socket is gone, and every member has had its ``on_leave``, when it exits.

    Args:
        backplane: the link to other servers, open; it stays so. None keeps rooms to this server.
        reuse_port: share the port with other servers that do (SO_REUSEPORT): Linux spreads connections over
            them. Rooms are one only if a backplane links them.
        api_key: what opens HTTP API, metrics and dashboard, at least 16 characters; without one they are not there.
        tracer_provider: OpenTelemetry's (extra ``otel``), for spans around hooks and publications. None traces nothing.
        siblings: other servers for which this one answers too; given by ``trioroom serve --workers``.
    Raises:
        OSError: the address is taken or not ours.
        RuntimeError: another server runs this app in this process.
        ValueError: a room class asks for what the backplane cannot do, or ``api_key`` is none.
    """
    if app._backplane is not None:
        raise RuntimeError("this app runs already; make another App for another server")
    settings = settings or Settings()
    endpoints = Endpoints(None if api_key is None else ApiKey(api_key), settings.publish_timeout + _ANSWER_TIMEOUT)
    failure: BaseException | None = None
    listeners: list[socket.socket] = []
    linked = backplane is not None
    backplane = MemoryBackplane() if backplane is None else backplane
    check_rooms(app, backplane)
    app._backplane = backplane  # before we await: it marks the app as taken
    try:
        listeners += await open_listeners(host, port, settings, reuse_port=reuse_port)
        async with trio.open_nursery() as nursery:
            hub = _make_hub(app, backplane, settings, nursery, tracer_provider)
            operator = app._operator = Operator(hub, backplane if linked else None)
            server = await _start(app, operator, ssl_context, listeners, endpoints, siblings, nursery)
            try:
                yield server
            except trio.Cancelled:
                raise
            except BaseException as exc:  # carried past the nursery, which would wrap it in a group
                failure = exc
            else:
                await retire(server._hub, server._stop_listening)
            nursery.cancel_scope.cancel()
    finally:
        app._backplane = app._operator = None
        for listener in listeners:
            listener.close()
    if failure is not None:
        raise failure


def _make_hub(
    app: App,
    backplane: Backplane,
    settings: Settings,
    nursery: trio.Nursery,
    tracer_provider: TracerProvider | None,
) -> Hub:
    authenticate = app._authenticate
    authentication = None if authenticate is None else Authentication(authenticate, settings.auth_timeout)
    if tracer_provider is None:
        return Hub(app._routes, backplane, settings, nursery, authentication)
    from trioroom._net.tracing import TracedHub  # which needs an extra

    return TracedHub(app._routes, backplane, settings, nursery, authentication, tracer_provider)


async def _start(
    app: App,
    operator: Operator,
    ssl_context: ssl.SSLContext | None,
    listeners: list[socket.socket],
    endpoints: Endpoints,
    siblings: Siblings | None,
    nursery: trio.Nursery,
) -> Server:
    """Start the server's own tasks (DESIGN: task tree); connections and rooms come into ``nursery``."""
    hub, settings, readiness = operator.hub, operator.hub.settings, open_readiness()
    heartbeat = Heartbeat(settings.ping_interval, settings.ping_timeout)
    HttpApi(operator).add_to(endpoints)
    http = HttpResponder(app._static, lambda: hub.unready, endpoints)
    admission = open_admission(settings)
    refusals = Refusals(admission)
    proxies = Networks(settings.trusted_proxies)
    greeter = Greeter(hub, http, heartbeat, Forwarding(proxies, settings.forwarded_header), refusals)
    accepted = AcceptedSockets(settings, readiness, ssl_context)
    entrance = Entrance(
        settings, admission, refusals, proxies, greeter, nursery, accepted.open, tls=ssl_context is not None
    )
    overview = Overview(hub, admission)
    endpoints.add("/metrics", Metrics(overview.look, siblings).answer, public=settings.public_metrics)
    Dashboard(Snapshots(overview).gather).add_to(endpoints)
    nursery.start_soon(readiness.run, name="readiness")
    nursery.start_soon(heartbeat.run, name="heartbeat")
    nursery.start_soon(hub.run, name="hub")
    nursery.start_soon(overview.vitals.run, name="vitals")
    if hub.authentication is not None:
        nursery.start_soon(hub.authentication.run, name="expiry")
    await nursery.start(operator.control.run, name="control")  # before anybody can be connected: no order is missed
    accepting = trio.CancelScope()  # inside the nursery of the connections, which outlive it
    nursery.start_soon(accept_until_cancelled, listeners, entrance.take, accepting, name="accept")
    stop_listening = partial(stop_accepting, listeners, entrance.take, accepting)
    return Server(greeter, hub, overview, entrance, accepted, listeners, stop_listening)


async def serve(
    app: App,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    settings: Settings | None = None,
    ssl_context: ssl.SSLContext | None = None,
    backplane: Backplane | None = None,
    reuse_port: bool = False,
    api_key: str | None = None,
    tracer_provider: TracerProvider | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run ``app`` until cancelled; ``nursery.start`` gets the `Server`. See `open_server`.

    Meanwhile the process is a server: its garbage collector is tuned for many long-lived connections.
    """
    opened = open_server(
        app, host, port, settings=settings, ssl_context=ssl_context, backplane=backplane, reuse_port=reuse_port,
        api_key=api_key, tracer_provider=tracer_provider,
    )  # fmt: skip
    async with opened as server:
        with server_gc_policy():
            task_status.started(server)
            await trio.sleep_forever()
