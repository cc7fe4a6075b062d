"""Every implementation of readiness, by one suite; kqueue runs on a made-up kernel where there is none."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trioroom
from trioroom._net import readiness as module
from trioroom._net.readiness import EpollReadiness, KqueueReadiness, PollReadiness, Readiness, open_readiness
from trioroom.testing import open_peer, open_test_server

if TYPE_CHECKING:
    from tests._net.conftest import FakeKqueueModule, Lobby


class Waiter:
    """The least that a readiness source can wake."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.ready = False
        self.hung_up = False
        self.reader: trio.lowlevel.Task | None = None

    def stop_waiting(self, raise_cancel: object, /) -> trio.lowlevel.Abort:
        self.reader = None
        return trio.lowlevel.Abort.SUCCEEDED


class Watched:
    """A registered socket and its peer, with a task that waits for it."""

    def __init__(self, readiness: Readiness) -> None:
        self.socket, self.peer = socket.socketpair()
        self.socket.setblocking(False)
        self.waiter = Waiter(self.socket)
        self.woken = 0
        self._readiness = readiness
        readiness.register(self.waiter)

    async def wait(self) -> None:
        if not self.waiter.ready:
            await self._readiness.wait_readable(self.waiter)
        self.waiter.ready = False
        self.woken += 1

    def close(self) -> None:
        self._readiness.unregister(self.waiter)
        self.socket.close()
        self.peer.close()


@pytest.fixture
def watch(readiness: Readiness) -> Iterator[Callable[[], Watched]]:
    """Makes a `Watched`, closed when the test is over."""
    with contextlib.ExitStack() as stack:

        def watch() -> Watched:
            watched = Watched(readiness)
            stack.callback(watched.close)
            return watched

        yield watch


async def settle() -> None:
    """Until all that has happened is told; a source that never comes to rest fails."""
    with trio.fail_after(2):
        await wait_all_tasks_blocked()


async def wait_parked(nursery: trio.Nursery, *all_watched: Watched) -> None:
    """Start the waiting tasks; all parked, and what happened at registration told."""
    for watched in all_watched:
        nursery.start_soon(watched.wait)
    await settle()


async def test_reader_wakes_when_bytes_come(nursery: trio.Nursery, watch: Callable[[], Watched]) -> None:
    watched, other = watch(), watch()
    await wait_parked(nursery, watched, other)
    assert None not in (watched.waiter.reader, other.waiter.reader)
    watched.peer.send(b"x")
    await settle()
    assert (watched.woken, watched.waiter.hung_up, watched.waiter.reader) == (1, False, None)
    assert other.woken == 0
    assert other.waiter.reader is not None
    other.peer.send(b"x")


@pytest.mark.parametrize("end", ["close", "half-close"])
async def test_reader_wakes_when_the_peer_ends(
    nursery: trio.Nursery, watch: Callable[[], Watched], end: str, readiness: Readiness
) -> None:
    watched = watch()
    await wait_parked(nursery, watched)
    if end == "close":
        watched.peer.close()
    else:
        watched.peer.shutdown(socket.SHUT_WR)
    await settle()
    assert watched.woken == 1
    assert watched.waiter.hung_up or isinstance(readiness, PollReadiness)


async def test_what_came_before_registration_is_told(nursery: trio.Nursery, readiness: Readiness) -> None:
    one, other = socket.socketpair()
    with one, other:
        other.send(b"x")
        waiter = Waiter(one)
        readiness.register(waiter)
        with trio.fail_after(5):
            await readiness.wait_readable(waiter)
        readiness.unregister(waiter)


async def test_cancelled_reader_leaves_and_can_wait_again(nursery: trio.Nursery, watch: Callable[[], Watched]) -> None:
    watched = watch()
    async with trio.open_nursery() as inner:
        await wait_parked(inner, watched)
        inner.cancel_scope.cancel()
    assert (watched.waiter.reader, watched.woken) == (None, 0)
    watched.peer.send(b"x")  # nobody waits: must wake nobody
    await settle()
    watched.socket.recv(10)
    watched.waiter.ready = False
    await wait_parked(nursery, watched)
    assert watched.woken == 0
    watched.peer.send(b"y")
    await settle()
    assert watched.woken == 1


async def test_one_that_is_gone_is_not_kept(nursery: trio.Nursery, readiness: Readiness) -> None:
    watched = Watched(readiness)
    await wait_parked(nursery, watched)
    watched.peer.close()  # it is the last one that is woken
    await settle()
    watched.close()
    waiter = weakref.ref(watched.waiter)
    del watched
    gc.collect()
    assert waiter() is None


@pytest.mark.parametrize("make_readiness", ["epoll", "kqueue"], indirect=True)  # the third asks the kernel each time
async def test_edge_is_told_once(nursery: trio.Nursery, watch: Callable[[], Watched]) -> None:
    watched = watch()
    watched.peer.send(b"unread")
    await wait_parked(nursery, watched)
    await wait_parked(nursery, watched)  # nothing new since: a level-triggered source would wake it at once
    assert watched.woken == 1
    watched.peer.send(b"more")
    await settle()
    assert watched.woken == 2


async def test_end_that_comes_with_the_last_bytes_is_told_with_them(
    nursery: trio.Nursery, watch: Callable[[], Watched], readiness: Readiness
) -> None:
    watched = watch()
    await wait_parked(nursery, watched)
    watched.peer.send(b"last")
    watched.peer.close()
    await settle()
    assert watched.woken == 1
    assert watched.waiter.hung_up or isinstance(readiness, PollReadiness)


async def test_unregistered_reader_is_woken(
    nursery: trio.Nursery, watch: Callable[[], Watched], readiness: Readiness
) -> None:
    watched = watch()
    outcome: list[str] = []

    async def wait() -> None:
        with contextlib.suppress(trio.ClosedResourceError):
            await readiness.wait_readable(watched.waiter)
        outcome.append(f"woken, {watched.socket.fileno()}")

    nursery.start_soon(wait)
    await settle()
    readiness.unregister(watched.waiter)
    watched.socket.close()
    await settle()
    assert outcome == ["woken, -1"]
    assert watched.waiter.reader is None


async def test_number_of_a_closed_socket_serves_the_next_one(
    nursery: trio.Nursery, watch: Callable[[], Watched]
) -> None:
    first = watch()
    number = first.socket.fileno()
    first.peer.send(b"x")  # an edge that nobody has taken yet
    first.close()
    second = watch()
    assert second.socket.fileno() == number
    await wait_parked(nursery, second)
    assert (second.woken, first.waiter.ready) == (0, False)
    second.peer.send(b"x")
    await settle()
    assert (second.woken, first.waiter.ready) == (1, False)


async def test_event_of_a_socket_that_has_gone_is_ignored(
    nursery: trio.Nursery, watch: Callable[[], Watched], readiness: Readiness
) -> None:
    gone, other = watch(), watch()
    await wait_parked(nursery, other)
    with gone.socket.dup():  # as in a child process: the kernel's queue keeps what is still open somewhere
        readiness.unregister(gone.waiter)
        gone.socket.close()
        gone.peer.send(b"x")
        await settle()
    assert (gone.waiter.ready, other.woken) == (False, 0)
    other.peer.send(b"x")
    await settle()
    assert other.woken == 1


async def test_more_events_than_one_batch_wake_all(
    make_readiness: Callable[[], Readiness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH", 4)
    readiness = make_readiness()
    all_watched = [Watched(readiness) for _ in range(10)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(readiness.run)
        await wait_parked(nursery, *all_watched)
        for watched in all_watched:
            watched.peer.send(b"x")
        await settle()
        assert [watched.woken for watched in all_watched] == [1] * 10
        nursery.cancel_scope.cancel()
    for watched in all_watched:
        watched.close()


async def test_nothing_is_left_open_after_run(make_readiness: Callable[[], Readiness]) -> None:
    before = os.listdir("/dev/fd")
    readiness = make_readiness()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(readiness.run)
        await settle()
        nursery.cancel_scope.cancel()
    assert os.listdir("/dev/fd") == before


@pytest.mark.parametrize(
    ("missing", "chosen"),
    [((), EpollReadiness), (("epoll",), KqueueReadiness), (("epoll", "kqueue"), PollReadiness)],
)
def test_best_source_of_the_platform_is_taken(
    missing: tuple[str, ...], chosen: type[Readiness], monkeypatch: pytest.MonkeyPatch, fake_kqueue: FakeKqueueModule
) -> None:
    macos = {name: getattr(fake_kqueue, name) for name in dir(fake_kqueue) if name.lower().startswith("k")}
    offered = {name: value for name, value in {**vars(select), **macos}.items() if name not in missing}
    monkeypatch.setattr(module, "select", SimpleNamespace(**offered))
    assert type(open_readiness()) is chosen


@pytest.mark.parametrize("size", [5, 200_000])
async def test_server_echoes_over_real_sockets(
    size: int,
    make_readiness: Callable[[], Readiness],
    monkeypatch: pytest.MonkeyPatch,
    lobby: Lobby,
) -> None:
    monkeypatch.setattr("trioroom.server.open_readiness", make_readiness)
    settings = trioroom.Settings(max_message_bytes=1 << 20, close_timeout=1.0)
    with trio.fail_after(10):
        async with open_test_server(lobby.app, settings) as server:
            async with open_peer(server, "/echo/a", tcp=True) as one, open_peer(server, "/echo/a", tcp=True) as two:
                for number in range(3):
                    for peer in (one, two):
                        await peer.send(bytes([number]) * size)
                    for peer in (one, two):
                        assert await peer.receive() == bytes([number]) * size
                await one.close()
                with pytest.raises(trioroom.ConnectionClosed):
                    await one.receive()
            await lobby.someone_left.wait()
    assert sorted(lobby.left) == ["closed with 1000", "connection lost"]
