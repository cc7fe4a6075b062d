"""Accepting: whoever died in the queue, means that run out, and the end of it."""

from __future__ import annotations

import errno
import gc
import os
import socket
import weakref
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioroom._net.listener import accept_until_cancelled, stop_accepting

if TYPE_CHECKING:
    pass


class Reluctant(socket.socket):
    """A listening socket whose accept(2) fails as it is told to, and then works."""

    failures: list[int]

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            number = self.failures.pop(0)
            raise OSError(number, os.strerror(number))
        return super().accept()


class Accepting:
    """An accept loop over one listener, and what it has accepted."""

    def __init__(self) -> None:
        self.listener = Reluctant(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.failures = []
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(300)
        self.listener.setblocking(False)
        self.scope = trio.CancelScope()
        self.accepted: list[socket.socket] = []
        self.handle: Callable[[socket.socket, str], None] = lambda sock, _: self.accepted.append(sock)
        self._clients: list[socket.socket] = []

    def connect(self) -> socket.socket:
        self._clients.append(client := socket.create_connection(self.listener.getsockname()))
        return client

    async def run(self) -> None:
        await accept_until_cancelled([self.listener], self.handle, self.scope)

    def close(self) -> None:
        for sock in (self.listener, *self._clients, *self.accepted):
            sock.close()


@pytest.fixture
async def accepting() -> AsyncIterator[Accepting]:
    accepting = Accepting()
    yield accepting
    accepting.close()


async def test_accepted_sockets_do_not_block(accepting: Accepting, nursery: trio.Nursery) -> None:
    nursery.start_soon(accepting.run)
    client = accepting.connect()
    await wait_all_tasks_blocked()
    (sock,) = accepting.accepted
    assert not sock.getblocking()
    client.send(b"x")
    assert sock.recv(1) == b"x"


async def test_accepted_socket_belongs_to_who_handles_it_alone(accepting: Accepting, nursery: trio.Nursery) -> None:
    nursery.start_soon(accepting.run)
    accepting.connect()
    await wait_all_tasks_blocked()
    sock = accepting.accepted.pop()
    sock.close()
    kept = weakref.ref(sock)
    del sock
    gc.collect()
    assert kept() is None


async def test_connection_that_died_in_the_queue_is_passed_over(accepting: Accepting, nursery: trio.Nursery) -> None:
    accepting.listener.failures = [errno.ECONNABORTED, errno.EPROTO, errno.EHOSTUNREACH] * 5
    accepting.connect()
    nursery.start_soon(accepting.run)
    await wait_all_tasks_blocked()
    assert len(accepting.accepted) == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_lack_of_means_is_waited_out_and_told_when_it_begins_and_ends(
    accepting: Accepting,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    accepting.listener.failures = [number] * 10
    accepting.connect()
    nursery.start_soon(accepting.run)
    await trio.sleep(0.25)
    assert len(accepting.listener.failures) == 7  # pauses, not a busy loop
    (begun,) = caplog.records
    assert "ulimit -n" in begun.getMessage()
    await trio.sleep(5)
    assert len(accepting.accepted) == 1
    assert [record.getMessage() for record in caplog.records] == [begun.getMessage(), "accepting again"]


async def test_places_that_come_free_one_by_one_do_not_fill_the_log(
    accepting: Accepting, nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def handle(sock: socket.socket, host: str) -> None:
        accepting.accepted.append(sock)
        accepting.listener.failures = [errno.EMFILE]

    accepting.handle = handle
    for _ in range(5):
        accepting.connect()
    nursery.start_soon(accepting.run)
    await trio.sleep(5)
    assert len(accepting.accepted) == 5
    assert len(caplog.records) == 2


async def test_busy_accept_loop_lets_others_run(accepting: Accepting, nursery: trio.Nursery) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while len(accepting.accepted) < 256:
            turns += 1
            await trio.lowlevel.checkpoint()

    for _ in range(256):
        accepting.connect()
    nursery.start_soon(accepting.run)
    with trio.fail_after(5):
        await count_turns()
    assert 3 <= turns <= 40


async def test_what_cannot_be_handled_does_not_end_accepting(
    accepting: Accepting, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    def handle(sock: socket.socket, host: str) -> None:
        assert host == "127.0.0.1"
        accepting.accepted.append(sock)
        if len(accepting.accepted) == 1:
            raise OSError(errno.ENOSPC, "max_user_watches reached")  # as epoll_ctl(2) says it

    accepting.handle = handle
    refused = accepting.connect()
    accepting.connect()
    nursery.start_soon(accepting.run)
    await trio.sleep(5)
    assert len(accepting.accepted) == 2
    refused.settimeout(5)
    assert refused.recv(1) == b""  # not left hanging either


async def test_connections_dropped_one_after_another_do_not_fill_the_log(
    accepting: Accepting, nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def handle(sock: socket.socket, host: str) -> None:
        accepting.accepted.append(sock)
        if len(accepting.accepted) <= 5:
            raise OSError(errno.ENOSPC, "max_user_watches reached")

    accepting.handle = handle
    nursery.start_soon(accepting.run)
    for _ in range(6):
        accepting.connect()
        await trio.sleep(5)
    assert len(accepting.accepted) == 6
    assert [record.getMessage() for record in caplog.records] == [
        "dropped a connection just accepted: [Errno 28] max_user_watches reached",
        "accepting again",
    ]


async def test_cancelling_stops_accepting_and_nothing_else(accepting: Accepting, nursery: trio.Nursery) -> None:
    nursery.start_soon(accepting.run)
    client = accepting.connect()
    await wait_all_tasks_blocked()
    accepting.scope.cancel()
    await wait_all_tasks_blocked()
    accepting.connect()
    await wait_all_tasks_blocked()
    (sock,) = accepting.accepted
    client.send(b"x")
    assert sock.recv(1) == b"x"
    assert accepting.listener.fileno() >= 0  # its owner closes it


async def test_stopping_takes_all_that_wait_first(accepting: Accepting) -> None:
    waiting = [accepting.connect() for _ in range(200)]
    accepting.listener.failures = [errno.ECONNABORTED, errno.EMFILE]
    stop_accepting([accepting.listener], accepting.handle, accepting.scope)
    assert len(accepting.accepted) == len(waiting)
    assert not any(sock.getblocking() for sock in accepting.accepted)
    assert accepting.listener.fileno() == -1
    assert accepting.scope.cancel_called


async def test_stopping_closes_what_cannot_be_handled(accepting: Accepting) -> None:
    client = accepting.connect()

    def handle(sock: socket.socket, host: str) -> None:
        raise OSError(errno.ENOSPC, "no room to watch it")

    stop_accepting([accepting.listener], handle, accepting.scope)
    assert client.recv(1) == b""


async def test_cancelled_before_it_began_accepts_nothing(accepting: Accepting) -> None:
    accepting.connect()
    accepting.listener.failures = [errno.EMFILE]
    accepting.scope.cancel()
    await accepting.run()
    assert not accepting.accepted
