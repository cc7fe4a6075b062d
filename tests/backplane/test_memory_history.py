"""Histories in memory: what only this store promises; the rest is in the conformance suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.backplane.sparse_memory import SparseMemoryBackplane
from trioroom._core.history import History, Kept, Position
from trioroom.backplane.base import Backplane, HistoryStore, Lost
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import HistoryConformance
from trioroom.testing.conformance import make_channel

ROOM = "room/a"
HISTORY = History(100)


@pytest.mark.usefixtures("autojump_clock")
class TestConformance(HistoryConformance):
    @asynccontextmanager
    async def open_nodes(self, count: int) -> AsyncIterator[Sequence[Backplane]]:
        yield [MemoryBackplane()] * count


@pytest.mark.usefixtures("autojump_clock")
class TestOffsetsWithHoles(HistoryConformance):
    @asynccontextmanager
    async def open_nodes(self, count: int) -> AsyncIterator[Sequence[Backplane]]:
        yield [SparseMemoryBackplane()] * count


def open_store(**bounds: float) -> HistoryStore:
    store = MemoryBackplane(**bounds).history  # type: ignore[arg-type]  # floats do for all of them
    assert store is not None
    return store


async def test_history_outlives_the_subscriptions() -> None:
    store = open_store()
    with make_channel(10) as channel:
        async with store.subscribe(ROOM, channel):
            position = await store.publish(ROOM, b"1", HISTORY)
    assert position is not None
    page = await store.read_after(ROOM, HISTORY, 0, 10)
    assert [kept.payload for kept in page.kept] == [b"1"]
    assert page.position == position


async def test_room_that_was_quiet_longest_gives_way_and_begins_another_epoch() -> None:
    store = open_store(max_history_bytes=10_000)
    for room in ("a", "b", "a", "c"):
        await store.publish(room, bytes(2_000), HISTORY)
    first = await store.publish("b", b"again", HISTORY)
    page = await store.read_after("a", HISTORY, 0, 10)
    assert len(page.kept) == 2
    await store.publish("c", bytes(6_000), HISTORY)
    assert first is not None
    page = await store.read_after("b", HISTORY, first.offset, 10, seen=first)
    assert (page.position.offset, page.previous, page.kept) == (0, None, ())
    assert page.position.epoch != first.epoch


async def test_position_beyond_the_end_begins_another_epoch() -> None:
    store = open_store()
    position = await store.publish(ROOM, b"1", HISTORY)
    assert position is not None
    page = await store.read_after(ROOM, HISTORY, 5, 10, seen=Position(position.epoch, 5))
    assert (page.position.offset, page.kept) == (0, ())
    assert page.position.epoch != position.epoch


async def test_those_who_wait_for_their_turn_reach_who_comes_when_the_last_subscriber_has_left() -> None:
    store = open_store()
    async with trio.open_nursery() as nursery:
        with make_channel(1) as left:
            async with store.subscribe(ROOM, left):
                for payload in (b"1", b"2", b"3"):
                    nursery.start_soon(store.publish, ROOM, payload, HISTORY)
                    await wait_all_tasks_blocked()
        with make_channel(10) as channel:
            async with store.subscribe(ROOM, channel):
                page = await store.read_after(ROOM, HISTORY, None, 1)
                await store.publish(ROOM, b"4", HISTORY)
                offsets = [channel.receive_nowait() for _ in range(len(channel))]
    assert all(isinstance(kept, Kept) for kept in offsets)
    seen = [kept.offset for kept in offsets if isinstance(kept, Kept)]
    assert seen == list(range(page.position.offset + 1, 5))


async def test_one_that_is_kept_is_told_to_who_misses_it_though_nobody_else_has_it() -> None:
    store = open_store()
    with make_channel(1) as channel:
        async with store.subscribe(ROOM, channel):
            await store.publish(ROOM, b"1", HISTORY)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.publish, ROOM, b"2", HISTORY)
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.publish, ROOM, b"3", HISTORY)
                received = [await channel.receive() for _ in range(3)]
    assert [kept.offset if isinstance(kept, Kept) else kept for kept in received] == [1, Lost("overflow", 1), 3]


async def test_history_that_has_been_forgotten_begins_another_epoch() -> None:
    backplane = MemoryBackplane()
    store = backplane.history
    assert store is not None
    before = await store.publish(ROOM, b"1", HISTORY, "id")
    backplane.forget_all()
    after = await store.publish(ROOM, b"1", HISTORY, "id")
    assert before is not None
    assert after is not None
    assert (before.epoch != after.epoch, after.offset) == (True, 1)


async def test_publication_id_is_forgotten_after_its_time(autojump_clock: MockClock) -> None:
    store = open_store(publication_id_ttl=10)
    first = await store.publish(ROOM, b"1", HISTORY, "id")
    await trio.sleep(9)
    assert await store.publish(ROOM, b"1", HISTORY, "id") == first
    await trio.sleep(1)
    assert await store.publish(ROOM, b"1", HISTORY, "id") != first
