"""The server that runs an `App`."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from trioroom._core.api_key import ApiKey
from trioroom._core.networks import Networks
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
from trioroom._net.operator import Operator
from trioroom._net.overview import Overview
from trioroom._net.readiness import open_readiness
from trioroom._net.refusals import Refusals
from trioroom._net.transport import StreamTransport
from trioroom._wire.forwarded import Forwarding
from trioroom.app import App, check_rooms
from trioroom.backplane.memory import MemoryBackplane
from trioroom.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider
    from trio_websocket import WebSocketRequest

    from trioroom._net.siblings import Siblings
    from trioroom.backplane.base import Backplane

_ANSWER_TIMEOUT = 5.0  # seconds an endpoint may take beyond what publishing may


class Server:
    """A running server; get it from `open_server`."""

    def __init__(
        self,
        greeter: Greeter,
        overview: Overview,
        entrance: Entrance,
        accepted: AcceptedSockets,
        listeners: list[socket.socket],
        stop_listening: Callable[[], None],
    ) -> None:
        self.addresses: list[tuple[str, int]] = [listener.getsockname()[:2] for listener in listeners]
        """Host and port of each listening socket; none where the server listens on nothing."""
        self._greeter = greeter
        self._hub = overview.hub
        self._overview = overview
        self._entrance = entrance
        self._accepted = accepted
        self._stop_listening = stop_listening

    @property
    def port(self) -> int:
        """The port of the listening sockets; the one that was picked when 0 was asked for.

        Raises:
            RuntimeError: there are none.
        """
        if not self.addresses:
            raise RuntimeError(
                "this server listens on no port; open_server takes a host, and open_test_server tcp=True"
            )
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
        from trioroom._net.trio_websocket import serve_websocket_request  # trio-websocket is there if a request is

        await serve_websocket_request(self._entrance, self._greeter, self._hub.settings, request)


@asynccontextmanager
async def open_server(
    app: App,
    host: str | None = "127.0.0.1",
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
        host: address to listen on; ``0.0.0.0`` is all of IPv4, ``::`` all of IPv6. None listens on nothing: peers come
            by `Server.serve_stream` and `Server.serve_websocket_request` only.
        settings: limits and deadlines; None is the defaults.
        ssl_context: TLS for all who connect, with its certificate loaded; None speaks none.
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
    settings = settings or Settings()
    endpoints = Endpoints(None if api_key is None else ApiKey(api_key), settings.publish_timeout + _ANSWER_TIMEOUT)
    failure: BaseException | None = None
    listeners: list[socket.socket] = []
    linked = backplane is not None
    backplane = MemoryBackplane() if backplane is None else backplane
    _take(app, backplane)  # before we await
    try:
        if host is not None:
            listeners += await open_listeners(host, port, settings, reuse_port=reuse_port)
        async with trio.open_nursery() as nursery:
            hub = _make_hub(app, backplane, settings, nursery, tracer_provider)
            overview = Overview(hub, open_admission(settings))
            operator = app._operator = Operator(overview, backplane if linked else None)
            server = await _start(app, operator, ssl_context, listeners, endpoints, siblings, nursery)
            try:
                yield server
            except trio.Cancelled:
                raise
            except BaseException as exc:  # carried past the nursery, which would wrap it in a group
                failure = exc
            else:
                await retire(server._hub, server._stop_listening)
            finally:
                hub.draining = True  # for who comes by other ways than the listener, even when all is over
            nursery.cancel_scope.cancel()
    finally:
        app._backplane = app._operator = None
        for listener in listeners:
            listener.close()
    if failure is not None:
        raise failure


def _take(app: App, backplane: Backplane) -> None:
    """Mark ``app`` as one that runs."""
    if app._backplane is not None:
        raise RuntimeError("this app runs already; make another App for another server")
    check_rooms(app, backplane)
    app._backplane = backplane


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
    overview, hub, readiness = operator.overview, operator.hub, open_readiness()
    settings, admission = hub.settings, overview.admission
    heartbeat = Heartbeat(settings.ping_interval, settings.ping_timeout)
    HttpApi(operator).add_to(endpoints)
    Dashboard(operator.snapshots).add_to(endpoints)
    _add_metrics(overview, endpoints, siblings)
    http = HttpResponder(app._static, lambda: hub.unready, endpoints)
    refusals = Refusals(admission)
    proxies = Networks(settings.trusted_proxies)
    greeter = Greeter(hub, http, heartbeat, Forwarding(proxies, settings.forwarded_header), refusals)
    accepted = AcceptedSockets(settings, readiness, ssl_context)
    entrance = Entrance(settings, admission, refusals, proxies, greeter, nursery, accepted)
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
    return Server(greeter, overview, entrance, accepted, listeners, stop_listening)


def _add_metrics(overview: Overview, endpoints: Endpoints, siblings: Siblings | None) -> None:
    """Where somebody may ask: siblings may, too, with a key that is newer than we are."""
    public = overview.hub.settings.public_metrics
    if public or endpoints.has_key or siblings is not None:
        from trioroom._net.metrics import Metrics  # Prometheus' client has an HTTP server in it, and takes its time

        endpoints.add("/metrics", Metrics(overview.moment, siblings).answer, public=public)


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
    """Run ``app`` until cancelled; ``nursery.start`` gets the `Server`. See `open_server`, whose context drains when it
    is left: this cannot, as it only ends by being cancelled, and then peers are closed with 1001.

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
