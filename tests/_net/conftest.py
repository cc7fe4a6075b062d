"""What tests of `_net` share: an app to serve, peers over any stream, sockets in pairs, a kqueue for Linux."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import pytest
import trio
import trio.testing

import trioroom
from tests._net.api_sites import Site, open_site, open_two_sites
from trioroom._net.readiness import (
    EpollReadiness,
    Kevent,
    KqueueReadiness,
    PollReadiness,
    Readiness,
    open_readiness,
)
from trioroom._wire.frames import Event
from trioroom.testing import Peer, V1Peer, open_test_server

# -- an app --------------------------------------------------------------------------------------


class Lobby:
    """An app whose rooms at ``/echo/{name}`` send back what comes, and what their hooks have seen."""

    def __init__(self) -> None:
        self.joined: list[trioroom.Member] = []
        self.received: list[object] = []
        self.left: list[str] = []
        self.someone_left = trio.Event()
        self.held_hook = ""
        """The hook that waits for `release` after it has taken its note."""
        self.release = trio.Event()
        self.app = trioroom.App()
        lobby = self

        class Echo(trioroom.Room):
            async def on_join(self, member: trioroom.Member) -> None:
                lobby.joined.append(member)
                await lobby._hold("on_join")

            async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
                lobby.received.append(message.data)
                await lobby._hold("on_message")
                member.send(message.data)

            async def on_leave(self, member: trioroom.Member, reason: str) -> None:
                lobby.left.append(reason)
                lobby.someone_left.set()
                await lobby._hold("on_leave")

        self.app.route("echo/{name}", Echo)

    async def _hold(self, hook: str) -> None:
        if hook == self.held_hook:
            await self.release.wait()


@pytest.fixture
def lobby() -> Lobby:
    return Lobby()


@pytest.fixture
def make_lobby() -> type[Lobby]:
    """For tests that need more than one."""
    return Lobby


# -- peers ---------------------------------------------------------------------------------------


class Greet(Protocol):
    async def __call__(self, stream: trio.abc.Stream, path: str = ..., headers: tuple[str, ...] = ...) -> Peer: ...


class OpenPeer(Protocol):
    def __call__(self, server: trioroom.Server, path: str = ...) -> AbstractAsyncContextManager[Peer]: ...


EventsUntilTheEnd = Callable[[Peer], Awaitable[list[Event]]]


class OpenV1(Protocol):
    def __call__(self, server: trioroom.Server) -> AbstractAsyncContextManager[V1Peer]: ...


class Upgrade(Protocol):
    def __call__(self, path: str = ..., headers: tuple[str, ...] = ...) -> bytes: ...


@pytest.fixture
def upgrade() -> Upgrade:
    """A proper opening handshake, with further header lines."""
    return _upgrade


def _upgrade(path: str = "/echo/a", headers: tuple[str, ...] = ()) -> bytes:
    lines = (
        f"GET {path} HTTP/1.1",
        "Host: test",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
    )
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.fixture
def greet() -> Greet:
    """Open a WebSocket over any stream; closing the stream is up to the test."""
    return _greet


async def _greet(stream: trio.abc.Stream, path: str = "/echo/a", headers: tuple[str, ...] = ()) -> Peer:
    await stream.send_all(_upgrade(path, headers))
    peer = Peer(stream)
    while not peer.head.endswith(b"\r\n\r\n"):
        byte = await stream.receive_some(1)  # what follows the head is left in the stream
        assert byte, peer.head
        peer.head += byte
    assert peer.head.startswith(b"HTTP/1.1 101 "), peer.head
    return peer


@pytest.fixture
def open_narrow_peer() -> OpenPeer:
    """A peer on a pipe that holds nothing: what is sent waits until the other side has read it all."""

    @asynccontextmanager
    async def open_narrow_peer(server: trioroom.Server, path: str = "/echo/a") -> AsyncIterator[Peer]:
        ours, theirs = trio.testing.lockstep_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, theirs)
            yield await _greet(ours, path)
            await trio.aclose_forcefully(ours)

    return open_narrow_peer


@pytest.fixture
def open_narrow_v1() -> OpenV1:
    """As `open_narrow_peer`, for a peer that speaks v1."""

    @asynccontextmanager
    async def open_narrow_v1(server: trioroom.Server) -> AsyncIterator[V1Peer]:
        ours, theirs = trio.testing.lockstep_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, theirs)
            peer = await _greet(ours, "/", ("Sec-WebSocket-Protocol: trioroom.v1.json",))
            v1 = V1Peer(peer, "trioroom.v1.json")
            v1.hello = await v1.receive()
            yield v1
            await trio.aclose_forcefully(ours)

    return open_narrow_v1


@pytest.fixture
def events_until_the_end() -> EventsUntilTheEnd:
    """Every frame that comes until the stream ends; each must be whole."""
    return _events_until_the_end


async def _events_until_the_end(peer: Peer) -> list[Event]:
    events: list[Event] = []
    while True:
        try:
            events.append(await peer.receive_event())
        except trioroom.ConnectionClosed:
            assert peer._received == b"", "a torn frame at the end"
            return events


@pytest.fixture
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection over loopback, as an accept loop would have them: the server's, the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield server, client


# -- readiness -----------------------------------------------------------------------------------


class FakeKevent:
    """kevent(2)."""

    def __init__(self, ident: int, filter: int, flags: int, fflags: int = 0, data: int = 0) -> None:
        self.ident, self.filter, self.flags, self.fflags, self.data = ident, filter, flags, fflags, data


class FakeKqueue:
    """The part of kqueue(2) that is about reading, on an epoll: a closed descriptor drops out by itself,
    ``EV_CLEAR`` makes edges, an event keeps the flags of its registration and has ``EV_EOF`` at the end."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._flags: dict[int, int] = {}

    def fileno(self) -> int:
        return self._epoll.fileno()

    def close(self) -> None:
        self._epoll.close()

    def control(self, changes: Iterable[Kevent] | None, max_events: int, timeout: float, /) -> list[Kevent]:
        for change in changes or ():
            self._add(change)
        if not max_events:
            return []
        return [self._to_event(fd, mask) for fd, mask in self._epoll.poll(timeout, max_events)]

    def _add(self, change: Kevent) -> None:
        if change.filter != FakeKqueueModule.KQ_FILTER_READ or not change.flags & FakeKqueueModule.KQ_EV_ADD:
            raise OSError(errno.EINVAL, "the fake knows EV_ADD of EVFILT_READ only")
        edges = select.EPOLLET if change.flags & FakeKqueueModule.KQ_EV_CLEAR else 0
        mask = select.EPOLLIN | select.EPOLLRDHUP | edges
        try:
            self._epoll.register(change.ident, mask)
        except FileExistsError:  # adding again modifies
            self._epoll.modify(change.ident, mask)
        self._flags[change.ident] = change.flags & ~FakeKqueueModule.KQ_EV_ADD

    def _to_event(self, fd: int, mask: int) -> Kevent:
        end = mask & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR)
        flags = self._flags[fd] | (FakeKqueueModule.KQ_EV_EOF if end else 0)
        return FakeKevent(fd, FakeKqueueModule.KQ_FILTER_READ, flags)


class FakeKqueueModule:
    """`select` as macOS has it, with its numbers."""

    KQ_FILTER_READ = -1
    KQ_EV_ADD = 0x1
    KQ_EV_CLEAR = 0x20
    KQ_EV_EOF = 0x8000

    def kqueue(self) -> FakeKqueue:
        return FakeKqueue()

    def kevent(self, ident: int, filter: int, flags: int, /) -> FakeKevent:
        return FakeKevent(ident, filter, flags)


@pytest.fixture
def fake_kqueue() -> FakeKqueueModule:
    return FakeKqueueModule()


def _kqueue_readiness() -> Readiness:
    if hasattr(select, "kqueue"):
        return open_readiness()
    return KqueueReadiness(FakeKqueueModule())


@pytest.fixture(params=["epoll", "kqueue", "poll"])
def make_readiness(request: pytest.FixtureRequest) -> Callable[[], Readiness]:
    """Each implementation there is; kqueue on Linux with a kernel that is made up."""
    if request.param == "epoll" and not hasattr(select, "epoll"):
        pytest.skip("no epoll on this platform")
    known: dict[str, Callable[[], Readiness]] = {
        "epoll": EpollReadiness,
        "kqueue": _kqueue_readiness,
        "poll": PollReadiness,
    }
    return known[request.param]


@pytest.fixture
async def readiness(make_readiness: Callable[[], Readiness], nursery: trio.Nursery) -> Readiness:
    """One that runs."""
    readiness = make_readiness()
    nursery.start_soon(readiness.run)
    return readiness


# -- the HTTP API ----------------------------------------------------------------------------------


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A server, alone."""
    async with open_site() as opened:
        yield opened


@pytest.fixture
async def sites() -> AsyncIterator[Sequence[Site]]:
    """Two that are linked."""
    async with open_two_sites() as opened:
        yield opened


@pytest.fixture
async def server(lobby: Lobby) -> AsyncIterator[trioroom.Server]:
    """One with the default settings."""
    async with open_test_server(lobby.app, trioroom.Settings()) as server:
        yield server
