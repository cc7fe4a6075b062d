"""Places are given back, and who came is counted once, whatever becomes of a peer and whenever it is cancelled."""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import socket
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest
import trio
import trustme
from trio.testing import memory_stream_pair
from trio_websocket import WebSocketRequest, serve_websocket

import trioroom
from trioroom.testing import cancel_at_step, open_test_server

if TYPE_CHECKING:
    from tests._net.conftest import Lobby, Upgrade

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs several addresses on the loopback interface")

PROXY = "127.1.0.1"
TRUSTED = ("127.1.0.0/16", "10.0.0.0/8")
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n"
HEADERS = (
    b"PROXY TCP4 192.0.2.%d 127.0.0.1 4711 80\r\n",
    b"PROXY TCP4 10.0.0.%d 127.0.0.1 4711 80\r\n",  # a proxy before the proxy
    b"PROXY UNKNOWN %d\r\n",
    b"PROXY nonsense %d\r\n",
    b"%d\r\n",
)
GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trioroom.ConnectionClosed)
RESET = struct.pack("ii", 1, 0)


def settings_of(**changed: object) -> trioroom.Settings:
    chosen = {
        "trusted_proxies": TRUSTED,
        "max_connections_per_address": 2,
        "max_handshake_rate_per_address": 500,
        "handshake_timeout": 0.3,
        "drain_timeout": 1.0,
        "close_timeout": 0.3,
        **changed,
    }
    return trioroom.Settings(**chosen)  # type: ignore[arg-type]  # by name


def check_counts(server: trioroom.Server) -> None:
    """What holds at any moment."""
    meters, connections = server._hub.limits.meters, server.connection_count
    assert meters.opened == meters.closed.total() + connections
    assert meters.connections.total() == connections
    assert server._overview.admission.present >= connections


async def check_everybody_is_gone(server: trioroom.Server, came: int) -> None:
    """Nobody has a place any more; of those who ``came`` is known what became of each."""
    admission, meters = server._overview.admission, server._hub.limits.meters
    with trio.fail_after(10):
        while admission.present:
            check_counts(server)
            await trio.sleep(0.01)
    check_counts(server)
    assert admission._by_network == {}
    assert server.connection_count == meters.members == 0
    assert meters.opened + meters.handshakes.total() + admission.refused.total() == came


class Course:
    """Peers of all kinds that come to ``server`` by its port, as chance has it.

    Args:
        announced: they begin with a PROXY header, more or less.
        trusting: most of them speak TLS.
    """

    def __init__(
        self, server: trioroom.Server, upgrade: Upgrade, seed: int, *, announced: bool, trusting: ssl.SSLContext | None
    ) -> None:
        self.server = server
        self.came = 0
        self._upgrade = upgrade
        self._random = random.Random(seed)
        self._announced = announced
        self._trusting = trusting

    async def run(self, peers: int) -> None:
        """So many of them, some at a time."""
        places = trio.CapacityLimiter(8)

        async def come() -> None:
            async with places:
                with contextlib.suppress(*GONE):
                    await self._come()

        async with trio.open_nursery() as nursery:
            for _ in range(peers):
                nursery.start_soon(come)

    async def _come(self) -> None:
        sock = trio.socket.socket()
        await sock.bind((self._random.choice((PROXY, PROXY, "127.0.0.2")), 0))
        await sock.connect(self.server.addresses[0])
        self.came += 1
        check_counts(self.server)
        async with trio.SocketStream(sock) as stream:
            if self._announced:
                header = self._random.choice(HEADERS) % self._random.randrange(1, 4)
                if self._random.random() < 0.2:
                    return await stream.send_all(header[: self._random.randrange(len(header))])
                await stream.send_all(header)
            if self._trusting is not None and self._random.random() < 0.7:
                tls = trio.SSLStream(stream, self._trusting, server_hostname="test", https_compatible=True)
                await self._speak(tls, stream)
            else:
                await self._speak(stream, stream)

    async def _speak(self, stream: trio.abc.Stream, tcp: trio.SocketStream) -> None:
        words = self._random.choice((self._ask, self._ask, self._say_too_little, self._say_nonsense))()
        await stream.send_all(words)
        if self._random.random() < 0.5:
            await trio.sleep(self._random.random() * 0.02)
        if self._random.random() < 0.3:
            return tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if self._random.random() < 0.7:
            await tcp.send_eof()
        with trio.move_on_after(self._random.random() * 0.5):
            while await stream.receive_some():
                check_counts(self.server)

    def _ask(self) -> bytes:
        if self._random.random() < 0.2:
            return HEALTH
        told = self._random.choice(("192.0.2.{}", "unknown", "10.0.0.1", "192.0.2.{}, 10.0.0.1", "::ffff:192.0.2.{}"))
        line = f"X-Forwarded-For: {told.format(self._random.randrange(1, 4))}"
        path = self._random.choice(("/echo/a", "/echo/b", "/nowhere"))
        closing = self._random.choice((b"", b"\x88\x82\0\0\0\0\x03\xe8", b"\xff\xff", b"\x81\x81\0\0\0\0a"))
        return self._upgrade(path, (line,)) + closing

    def _say_too_little(self) -> bytes:
        words = HEALTH if self._random.random() < 0.5 else self._upgrade()
        return words[: self._random.randrange(len(words))]

    def _say_nonsense(self) -> bytes:
        return self._random.choice((b"\x16\x03\x01\x02\0\x01", b"GET / HTTP/3\r\n\r\n", b"\0" * 40, b"\r\n\r\n"))


@pytest.mark.parametrize("announced", [False, True])
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("seed", range(3))
async def test_all_places_are_given_back(
    lobby: Lobby, upgrade: Upgrade, seed: int, announced: bool, tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    serving, trusting = make_contexts() if tls else (None, None)
    settings = settings_of(proxy_protocol=announced)
    with trio.fail_after(30):
        async with trioroom.open_server(lobby.app, port=0, settings=settings, ssl_context=serving) as server:
            course = Course(server, upgrade, seed, announced=announced, trusting=trusting)
            await course.run(120)
            await check_everybody_is_gone(server, course.came)
    assert len(lobby.joined) == len(lobby.left)
    faults = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not faults, "nothing that peers do is a fault of ours"


def make_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """One to serve, and one that trusts it."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    serving, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("test").configure_cert(serving)
    authority.configure_trust(trusting)
    return serving, trusting


# -- cancelled ones --------------------------------------------------------------------------------


async def cancel_at_every_step(
    server: trioroom.Server, visit: Callable[[int], Awaitable[trio.CancelScope]], least: int
) -> None:
    """Have ``visit`` go as far as any number of steps; at least so many lead somewhere."""
    for step in itertools.count():
        with trio.fail_after(10):
            scope = await visit(step)
        check_counts(server)
        assert server._overview.admission.present == 0, step
        assert server._overview.admission._by_network == {}, step
        assert server._hub._answering == server._hub.limits.meters.members == 0, step
        if not scope.cancelled_caught:
            break
    assert step > least, "the scenario has become too short to tell anything"


@pytest.mark.parametrize("request_of", ["upgrade", "health", "nothing"])
async def test_stream_may_be_cancelled_at_any_step(lobby: Lobby, upgrade: Upgrade, request_of: str) -> None:
    said = {"upgrade": upgrade() + b"\x81\x81\0\0\0\0a", "health": HEALTH, "nothing": b""}[request_of]

    async def visit(step: int) -> trio.CancelScope:
        ours, theirs = memory_stream_pair()
        with cancel_at_step(step) as scope:
            async with trio.open_nursery() as nursery, ours:
                nursery.start_soon(server.serve_stream, theirs)
                await ours.send_all(said)
                await ours.send_eof()
                while await ours.receive_some():
                    pass
        return scope

    async with open_test_server(lobby.app, settings_of()) as server:
        await cancel_at_every_step(server, visit, 5)


async def test_peer_of_trio_websocket_may_be_cancelled_at_any_step(lobby: Lobby, upgrade: Upgrade) -> None:
    async def say_it_is_over(stream: trio.SocketStream) -> None:
        with contextlib.suppress(*GONE):
            await stream.receive_some()  # wsproto lets what comes with the handshake lie
            await stream.send_all(b"\x81\x81\0\0\0\0a" + b"\x88\x82\0\0\0\0\x03\xe8")

    async def visit(step: int) -> trio.CancelScope:
        served, scopes = trio.Event(), []

        async def handle(request: WebSocketRequest) -> None:
            with cancel_at_step(step) as scope:
                scopes.append(scope)
                await server.serve_websocket_request(request)
            served.set()

        async with trio.open_nursery() as nursery:
            other = await nursery.start(serve_websocket, handle, "127.0.0.1", 0, None)
            async with await trio.open_tcp_stream("127.0.0.1", other.port) as there:
                await there.send_all(upgrade())
                nursery.start_soon(say_it_is_over, there)
                await served.wait()
            nursery.cancel_scope.cancel()
        return scopes[0]

    async with open_test_server(lobby.app, settings_of(trusted_proxies=(), close_timeout=0.02), tcp=True) as server:
        await cancel_at_every_step(server, visit, 20)
