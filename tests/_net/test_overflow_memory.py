"""The budget is charged with what the memory is that queues take, and not only with their bytes."""

from __future__ import annotations

import gc
import math
import socket
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trioroom
from trioroom._core.batch import batch_of, single
from trioroom._core.budget import Budget
from trioroom._core.outbox import Outbox
from trioroom._core.overflow import Feed, Overflow, Tally
from trioroom.testing import open_test_server

if TYPE_CHECKING:
    from tests._net.conftest import Greet, Lobby

NOW = 7.5
WRITER_BYTES = 4_700
"""Of `OUTBOX_BYTES` is the task's that writes from the outbox."""


class Memory:
    """What was taken in a `measured` block."""

    taken = 0


@contextmanager
def measured() -> Iterator[Memory]:
    memory = Memory()
    gc.collect()
    tracemalloc.start()
    try:
        yield memory
        gc.collect()
        memory.taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


def feed_of(policy: Overflow = Overflow.DISCONNECT) -> Feed:
    return Feed(policy, Tally(), lambda lost: b"")


# -- outboxes alone, as they fill up ---------------------------------------------------------------


def one_by_one(budget: Budget) -> list[Outbox]:
    feed, outbox = feed_of(), Outbox(5_000, 1 << 20, budget)
    for number in range(5_000):
        outbox.offer(single(feed, bytes(100)), NOW + number)
    return [outbox]


def shared(budget: Budget) -> list[Outbox]:
    feed, outboxes = feed_of(), [Outbox(5_000, 1 << 21, budget) for _ in range(200)]
    for number in range(50):
        batch = batch_of(feed, [bytes(1_024)] * 32)
        for outbox in outboxes:
            outbox.offer(batch, NOW + number)
    return outboxes


def latest(budget: Budget) -> list[Outbox]:
    feed, outbox = feed_of(Overflow.LATEST), Outbox(5_000, 1 << 20, budget)
    for number in range(100):  # what was replaced is gone
        keys = [f"sensor {(number * 32 + frame) % 1_000}" for frame in range(32)]
        outbox.offer(batch_of(feed, [bytes(100)] * 32, keys), NOW + number)
    return [outbox]


def many_keys(budget: Budget) -> list[Outbox]:
    feed, outboxes = feed_of(Overflow.LATEST), [Outbox(5_000, 1 << 20, budget) for _ in range(50)]
    for start in range(0, 1_024, 32):
        batch = batch_of(feed, [bytes(100)] * 32, [f"sensor {start + frame}" for frame in range(32)])
        for outbox in outboxes:
            outbox.offer(batch, NOW + start)
    return outboxes


def each_its_own(budget: Budget) -> list[Outbox]:
    feed, outboxes = feed_of(), [Outbox(5_000, 1 << 20, budget) for _ in range(500)]
    for number, outbox in enumerate(outboxes):
        outbox.offer(single(feed, bytes(10_240)), NOW + number)
    return outboxes


@pytest.mark.untraced
@pytest.mark.parametrize("fill", [one_by_one, shared, latest, many_keys, each_its_own])
def test_budget_is_charged_with_what_memory_is_taken(fill: Callable[[Budget], list[Outbox]]) -> None:
    budget = Budget(math.inf)
    with measured() as memory:
        outboxes = fill(budget)
    assert budget.used == pytest.approx(memory.taken + WRITER_BYTES * len(outboxes), rel=0.15)
    for outbox in outboxes:
        outbox.discard()
    assert budget.used == 0


# -- connections with their writers ------------------------------------------------------------------

CONNECTIONS = 100
SOCKET_BYTES = 4_096
SIZE = 100_000  # more than the kernel takes of one message
TRACED = 0.3  # what measures coverage keeps 1.5 KB for each task


async def test_budget_is_charged_with_what_a_stalled_connection_takes(lobby: Lobby, greet: Greet) -> None:
    settings = trioroom.Settings(socket_send_bytes=SOCKET_BYTES)
    with trio.fail_after(20):
        async with open_test_server(lobby.app, settings, tcp=True) as server, AsyncExitStack() as stack:
            for _ in range(CONNECTIONS):
                sock = trio.socket.socket()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
                await sock.connect(server.addresses[0])
                await greet(await stack.enter_async_context(trio.SocketStream(sock)))
            while len(lobby.joined) < CONNECTIONS:
                await trio.lowlevel.checkpoint()
            await wait_all_tasks_blocked()
            with measured() as memory:
                for member in lobby.joined:
                    member.send(bytes(SIZE))
                await wait_all_tasks_blocked()
            charged = server.statistics().queued_bytes - SIZE * CONNECTIONS
            taken = memory.taken - SIZE * CONNECTIONS
            assert charged == pytest.approx(taken, rel=TRACED if sys.gettrace() else 0.15)
            assert taken / CONNECTIONS > WRITER_BYTES
            for member in lobby.joined:
                member._connection.abort()
            await wait_all_tasks_blocked()
            assert server.statistics().queued_bytes == 0
