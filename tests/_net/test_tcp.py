"""Options of TCP sockets, looked at where they have to be: on the sockets that a listener accepts."""

from __future__ import annotations

import fcntl
import math
import socket
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio

import trioroom
from trioroom._net.listener import open_listeners
from trioroom._net.tcp import INHERITED, open_socket_stream, set_options
from trioroom._wire.client_frames import encode_masked
from trioroom._wire.frames import Opcode
from trioroom.settings import Settings
from trioroom.testing import open_peer, open_test_server

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads options as Linux tells them")
SEGMENT = 65_536  # bytes, on the loopback interface
SIOCOUTQ = termios.TIOCOUTQ  # tcp(7): what the peer has not acknowledged
FREE = Settings(
    socket_unsent_bytes=None,
    socket_send_bytes=None,
    socket_receive_bytes=None,
    tcp_user_timeout=math.inf,
    tcp_keepalive_interval=math.inf,
)
"""Everything left to the kernel."""


@asynccontextmanager
async def accepted(settings: Settings) -> AsyncIterator[socket.socket]:
    """A socket as the accept loop gets it."""
    async with connected(settings) as (sock, _):
        yield sock


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    """A socket as the accept loop gets it, and its peer's; neither blocks."""
    (listener,) = await open_listeners("127.0.0.1", 0, settings)
    with listener, socket.create_connection(listener.getsockname()) as peer, listener.accept()[0] as sock:
        sock.setblocking(False)
        peer.setblocking(False)
        yield sock, peer


def tcp_option(sock: socket.socket, name: str) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))


def socket_option(sock: socket.socket, name: str) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, getattr(socket, name))


@linux
async def test_accepted_sockets_have_the_options_of_their_listener() -> None:
    settings = Settings(
        socket_unsent_bytes=10_000,
        socket_send_bytes=20_000,
        socket_receive_bytes=30_000,
        tcp_user_timeout=1.5,
        tcp_keepalive_interval=7.0,
    )
    assert INHERITED
    async with accepted(settings) as sock:
        assert tcp_option(sock, "TCP_NODELAY") == 1
        assert tcp_option(sock, "TCP_NOTSENT_LOWAT") == 10_000
        assert socket_option(sock, "SO_SNDBUF") == 40_000  # doubled by the kernel, for its own overhead
        assert socket_option(sock, "SO_RCVBUF") == 60_000
        assert tcp_option(sock, "TCP_USER_TIMEOUT") == 1_500  # milliseconds
        assert socket_option(sock, "SO_KEEPALIVE") == 1
        assert tcp_option(sock, "TCP_KEEPIDLE") == tcp_option(sock, "TCP_KEEPINTVL") == 7
        assert tcp_option(sock, "TCP_KEEPCNT") == 3


@linux
async def test_what_is_switched_off_is_left_to_the_kernel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:
        with socket.create_connection(plain.getsockname()), plain.accept()[0] as untouched:
            async with accepted(FREE) as sock:
                for name in ("TCP_NOTSENT_LOWAT", "TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"):
                    assert tcp_option(sock, name) == tcp_option(untouched, name), name
                for name in ("SO_SNDBUF", "SO_RCVBUF", "SO_KEEPALIVE"):
                    assert socket_option(sock, name) == socket_option(untouched, name), name
                assert tcp_option(sock, "TCP_NODELAY") == 1


@linux
async def test_server_hands_the_defaults_on() -> None:
    app = trioroom.App()
    app.route("room", trioroom.Room)
    async with open_test_server(app, tcp=True) as server, open_peer(server, "/room", tcp=True):
        (connection,) = server._hub.connections
        sock: socket.socket = connection.transport.socket  # type: ignore[attr-defined]  # it is a SocketTransport
        assert tcp_option(sock, "TCP_NOTSENT_LOWAT") == Settings().socket_unsent_bytes
        assert socket_option(sock, "SO_RCVBUF") == 2 * (Settings().socket_receive_bytes or 0)
        assert tcp_option(sock, "TCP_USER_TIMEOUT") == 30_000


@linux
@pytest.mark.parametrize("unsent", [10_000, None])
async def test_stream_over_an_accepted_socket_keeps_its_options(unsent: int | None) -> None:
    """As TLS needs it: Trio's stream comes with options of its own."""
    settings = attrs.evolve(FREE, socket_unsent_bytes=unsent)
    async with accepted(settings) as sock:
        before = tcp_option(sock, "TCP_NOTSENT_LOWAT")
        stream = open_socket_stream(sock, settings)
        option = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
        assert option == before == (unsent or 0)


async def test_option_that_the_platform_does_not_know_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TCP_NOTSENT_LOWAT", "TCP_USER_TIMEOUT", "TCP_KEEPINTVL", "TCP_KEEPCNT"):
        monkeypatch.delattr(socket, name, raising=False)
    async with accepted(Settings()) as sock:
        assert socket_option(sock, "SO_KEEPALIVE")


@linux
async def test_idle_time_goes_by_the_name_that_macos_has_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "TCP_KEEPALIVE", socket.TCP_KEEPIDLE, raising=False)
    monkeypatch.delattr(socket, "TCP_KEEPIDLE")
    async with accepted(Settings(tcp_keepalive_interval=9.0)) as sock:
        assert tcp_option(sock, "TCP_KEEPALIVE") == 9


async def test_options_can_be_set_on_an_accepted_socket_too() -> None:
    """For platforms where they are not inherited."""
    async with accepted(FREE) as sock:
        set_options(sock, Settings())
        assert tcp_option(sock, "TCP_NODELAY")


def pass_on(source: socket.socket, target: socket.socket) -> None:
    """12 MB in quick succession, after which the kernel thinks well of the connection."""
    for _ in range(200):
        rest = source.send(bytes(60_000))
        while rest:
            with suppress(BlockingIOError):
                rest -= len(target.recv(rest))


def fill(source: socket.socket) -> None:
    """Send until the kernel takes no more."""
    with suppress(BlockingIOError):
        while True:
            source.send(bytes(1_000))


def waiting(sock: socket.socket, request: int) -> int:
    """The bytes in one of the socket's queues."""
    return int.from_bytes(fcntl.ioctl(sock, request, bytes(4)), sys.byteorder)


@linux
async def test_peer_that_reads_nothing_holds_little_in_the_kernel() -> None:
    async with connected(Settings()) as (sock, peer):
        pass_on(sock, peer)
        fill(sock)
        assert waiting(sock, SIOCOUTQ) < 16_384 + 2 * SEGMENT


@linux
async def test_what_we_do_not_read_holds_little_in_the_kernel() -> None:
    async with connected(Settings()) as (sock, peer):
        pass_on(peer, sock)
        fill(peer)
        assert 32_768 < waiting(sock, termios.FIONREAD) <= 65_536 + SEGMENT


@linux
async def test_peer_that_takes_nothing_and_keeps_talking_is_dropped_by_the_kernel() -> None:
    """Its bytes prove that it lives, so that the heartbeat never ends it; nor does a full outbox."""
    left = trio.Event()

    class Flood(trioroom.Room):
        async def on_join(self, member: trioroom.Member) -> None:
            for _ in range(64):
                member.send(bytes(16_384))

        async def on_leave(self, member: trioroom.Member, reason: str) -> None:
            left.set()

    app = trioroom.App()
    app.route("flood", Flood)
    settings = Settings(tcp_user_timeout=0.2, max_outbox_bytes=1 << 30)
    async with (
        open_test_server(app, settings, timeout=20, tcp=True) as server,
        open_peer(server, "/flood", tcp=True) as peer,
    ):
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012  # as it goes on until it cannot
            while True:
                await peer.stream.send_all(encode_masked(Opcode.PONG, b""))
                await trio.sleep(0.02)
        with trio.fail_after(5):
            await left.wait()
