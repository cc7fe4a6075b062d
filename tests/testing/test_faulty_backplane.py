"""A link that fails on demand: until then a backplane like any other."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioroom._core.budget import Budget
from trioroom._core.history import History, Kept
from trioroom.backplane.base import Backplane, Delivery, Lost, PresenceListener, PresenceSeat
from trioroom.backplane.memory_presence import MemoryPresence
from trioroom.backplane.room_channel import RoomChannel
from trioroom.errors import BackplaneUnavailable
from trioroom.testing import BackplaneConformance, Fault, FaultyBackplane, HistoryConformance, PresenceConformance
from trioroom.testing.conformance import subscribed
from trioroom.testing.severed_presence import SeveredPresence

ROOM = "room/a"
GAP = Lost("backplane")


@asynccontextmanager
async def nodes_of_one_broker(count: int) -> AsyncIterator[Sequence[Backplane]]:
    first = FaultyBackplane()
    yield [first, *(first.another_node() for _ in range(count - 1))]


class TestWithoutFaults(BackplaneConformance):
    open_nodes = staticmethod(nodes_of_one_broker)


class TestHistoriesWithoutFaults(HistoryConformance):
    short_ttl = 0.3
    open_nodes = staticmethod(nodes_of_one_broker)


class TestPresenceWithoutFaults(PresenceConformance):
    open_nodes = staticmethod(nodes_of_one_broker)


async def come(channel: RoomChannel) -> list[Delivery]:
    """What comes, once nothing is on its way any more."""
    await trio.sleep(10)
    deliveries: list[Delivery] = []
    try:
        while True:
            deliveries.append(channel.receive_nowait())
    except trio.WouldBlock:
        return deliveries


async def publish(node: Backplane, *numbers: int) -> None:
    for number in numbers:
        await node.publish(ROOM, b"%d" % number)


def numbers_of(deliveries: list[Delivery]) -> list[int]:
    return [int(delivery) for delivery in deliveries if isinstance(delivery, bytes)]


# -- partitions ------------------------------------------------------------------------------------


async def test_partitioned_node_hears_nothing_and_is_told_of_a_gap_afterwards(autojump_clock: MockClock) -> None:
    here = FaultyBackplane()
    there = here.another_node()
    async with subscribed(here, ROOM, 10) as parted, subscribed(there, ROOM, 10) as linked:
        await publish(there, 1)
        await trio.sleep(1)
        with here.partitioned():
            assert (here.ready, there.ready) == (False, True)
            await publish(there, 2)
            with pytest.raises(BackplaneUnavailable):
                await publish(here, 3)
            with pytest.raises(BackplaneUnavailable):
                async with subscribed(here, "room/b", 10):
                    pass
            assert await come(parted) == [b"1"]
        assert here.ready
        await publish(there, 4)
        await publish(here, 5)
        assert await come(parted) == [GAP, b"4", b"5"]
        assert await come(linked) == [b"1", b"2", b"4", b"5"]


async def test_what_was_on_its_way_is_lost_and_told(autojump_clock: MockClock) -> None:
    node = FaultyBackplane(delay=1.0)
    async with subscribed(node, ROOM, 10) as channel:
        await publish(node, 1)
        await trio.sleep(0.5)
        with node.partitioned():
            pass
        await publish(node, 2)
        assert await come(channel) == [GAP, b"2"]


async def test_gap_comes_behind_what_waits_for_a_full_channel(autojump_clock: MockClock) -> None:
    node = FaultyBackplane()
    async with subscribed(node, ROOM, 1) as channel, trio.open_nursery() as nursery:
        nursery.start_soon(publish, node, 1, 2, 3)
        await wait_all_tasks_blocked()
        with node.partitioned():
            await wait_all_tasks_blocked()
        nursery.start_soon(publish, node, 4)
        received = [await channel.receive() for _ in range(4)]
        assert received == [b"1", b"2", GAP, b"4"]


async def test_healing_what_is_not_partitioned_does_nothing(autojump_clock: MockClock) -> None:
    node = FaultyBackplane()
    async with subscribed(node, ROOM, 10) as channel:
        node.heal()
        await publish(node, 1)
        assert await come(channel) == [b"1"]


async def test_histories_cannot_be_reached_in_a_partition() -> None:
    node = FaultyBackplane()
    assert node.history is not None
    node.partition()
    with pytest.raises(BackplaneUnavailable):
        await node.history.publish(ROOM, b"1", History(10))
    with pytest.raises(BackplaneUnavailable):
        await node.history.read_after(ROOM, History(10), 0, 10)
    with pytest.raises(BackplaneUnavailable):
        await node.history.read_before(ROOM, History(10), 10, 10)
    assert node.presence is not None
    with pytest.raises(BackplaneUnavailable):
        async with node.presence.open(ROOM, Silent(), 1.0):
            pass


class Late(MemoryPresence):
    """A link whose answer takes a second."""

    @asynccontextmanager
    async def open(self, room: str, listener: PresenceListener, interval: float) -> AsyncIterator[PresenceSeat]:
        async with super().open(room, listener, interval) as seat:
            await trio.sleep(1)
            yield seat


async def test_seat_cannot_be_had_if_the_partition_begins_meanwhile(autojump_clock: MockClock) -> None:
    presence = SeveredPresence(Late(), lease=30.0)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def sever() -> None:
            await trio.sleep(0.5)
            presence.sever()

        with pytest.raises(BackplaneUnavailable):
            async with presence.open(ROOM, Silent(), 1.0):
                pass
    presence.mend()
    async with presence.open(ROOM, Silent(), 1.0):
        pass


# -- the broker ------------------------------------------------------------------------------------


async def test_restarted_broker_has_forgotten_and_all_who_are_linked_are_told(autojump_clock: MockClock) -> None:
    here = FaultyBackplane()
    there, parted = here.another_node(), here.another_node()
    assert here.history is not None
    before = await here.history.publish(ROOM, b"kept", History(10), "id")
    async with subscribed(here, ROOM, 10) as one, subscribed(there, ROOM, 10) as two, subscribed(parted, ROOM, 10) as x:
        parted.partition()
        here.restart()
        assert not parted.ready
        assert [await come(one), await come(two), await come(x)] == [[GAP], [GAP], []]
    after = await here.history.publish(ROOM, b"again", History(10), "id")
    assert before is not None
    assert after is not None
    assert before.epoch != after.epoch
    await here.publish(ROOM, b"1", "used")
    here.restart()
    async with subscribed(here, ROOM, 10) as channel:
        await here.publish(ROOM, b"1", "used")
        assert await come(channel) == [b"1"]


async def test_what_the_dead_broker_sent_does_not_come_behind_the_gap(autojump_clock: MockClock) -> None:
    node = FaultyBackplane()
    assert node.history is not None

    async def publish_kept() -> None:
        assert node.history is not None
        for number in range(20):
            await node.history.publish(ROOM, b"%d" % number, History(10))

    with RoomChannel(2, math.inf, Budget(math.inf)) as channel:
        async with node.history.subscribe(ROOM, channel), trio.open_nursery() as nursery:
            nursery.start_soon(publish_kept)
            await wait_all_tasks_blocked()  # everything is full: the channel, what is on its way, and what comes
            first = channel.receive_nowait()
            node.restart()
            node.restart()
            rest: list[Delivery] = []
            with trio.fail_after(5):
                while not (rest and isinstance(rest[-1], Kept) and rest[-1].payload == b"19"):
                    rest.append(await channel.receive())
    assert isinstance(first, Kept)
    behind = rest[len(rest) - rest[::-1].index(GAP) :]
    assert [kept.offset for kept in behind if isinstance(kept, Kept) and kept.epoch != first.epoch]
    assert not [kept for kept in behind if isinstance(kept, Kept) and kept.epoch == first.epoch]


def test_what_is_not_memory_cannot_be_restarted_from_here() -> None:
    with pytest.raises(TypeError, match="restart its broker"):
        FaultyBackplane(FaultyBackplane()).restart()


async def test_answer_that_is_lost_leaves_the_publisher_in_doubt(autojump_clock: MockClock) -> None:
    node = FaultyBackplane()
    async with subscribed(node, ROOM, 10) as channel:
        node.lose_next_answer()
        with pytest.raises(BackplaneUnavailable, match="answer was lost"):
            await node.publish(ROOM, b"1", "id")
        await node.publish(ROOM, b"1", "id")
        assert await come(channel) == [b"1"]


# -- single publications ---------------------------------------------------------------------------


async def test_next_publications_meet_what_was_asked_for(autojump_clock: MockClock) -> None:
    node = FaultyBackplane()
    async with subscribed(node, ROOM, 10) as channel:
        node.drop_next(2)
        await publish(node, 1, 2, 3)
        assert await come(channel) == [b"3"]
        node.duplicate_next()
        await publish(node, 4, 5)
        assert await come(channel) == [b"4", b"4", b"5"]
        node.reorder_next()
        await publish(node, 6, 7, 8)
        assert await come(channel) == [b"7", b"6", b"8"]
        node.reorder_next()
        await publish(node, 9)
        assert await come(channel) == [b"9"]
    assert node.counts == {Fault.DROPPED: 2, Fault.DUPLICATED: 1, Fault.REORDERED: 2}


async def test_no_next_publications_are_a_mistake() -> None:
    node = FaultyBackplane()
    for plan in (node.drop_next, node.duplicate_next, node.lose_next_answer):
        with pytest.raises(ValueError, match="count=0"):
            plan(0)
    with pytest.raises(ValueError, match="count=-1"):
        node.delay_next(1.0, -1)


async def test_delayed_publication_holds_up_those_behind_it(autojump_clock: MockClock) -> None:
    node = FaultyBackplane()
    async with subscribed(node, ROOM, 10) as channel:
        node.delay_next(5.0)
        began = trio.current_time()
        await publish(node, 1)
        await trio.sleep(1)
        await publish(node, 2)
        assert [await channel.receive(), await channel.receive()] == [b"1", b"2"]
        assert trio.current_time() - began == pytest.approx(5.0)


async def test_delay_is_that_of_the_line_and_not_of_the_queue(autojump_clock: MockClock) -> None:
    node = FaultyBackplane(delay=1.0)
    async with subscribed(node, ROOM, 10) as channel:
        began = trio.current_time()
        await publish(node, *range(5))
        received = [await channel.receive() for _ in range(5)]
        assert numbers_of(received) == list(range(5))
        assert trio.current_time() - began == pytest.approx(1.0)


async def test_fault_can_be_meant_for_one_room(autojump_clock: MockClock) -> None:
    node = FaultyBackplane()
    async with subscribed(node, ROOM, 10) as one, subscribed(node, "room/b", 10) as other:
        node.drop_next(room=ROOM)
        await node.publish("room/b", b"1")
        await publish(node, 1, 2)
        assert (await come(other), await come(one)) == ([b"1"], [b"2"])


async def test_servers_own_rooms_meet_partitions_only(autojump_clock: MockClock) -> None:
    node = FaultyBackplane(drop=1.0)
    async with subscribed(node, "\0orders", 10) as channel:
        await node.publish("\0orders", b"1")
        with node.partitioned():
            pass
        await node.publish("\0orders", b"2")
        assert await come(channel) == [GAP, b"2"]


# -- chance ----------------------------------------------------------------------------------------


async def run_of(node: FaultyBackplane, room: str = ROOM) -> list[Delivery]:
    async with subscribed(node, room, 1_000) as channel:
        for number in range(100):
            await node.publish(room, b"%d" % number)
        return await come(channel)


def faulty(seed: int) -> FaultyBackplane:
    return FaultyBackplane(seed=seed, drop=0.1, duplicate=0.1, reorder=0.1, delay=(0.0, 0.2))


async def test_same_seed_has_the_same_faults(autojump_clock: MockClock) -> None:
    first, again, other = faulty(1), faulty(1), faulty(2)
    run = await run_of(first)
    assert await run_of(again, "room/elsewhere") != run
    assert await run_of(again) == run
    assert await run_of(other) != run
    assert set(first.counts) == set(Fault)
    assert await run_of(first) != run  # another subscription


class Silent:
    """A listener to whom nothing matters."""

    def rows_changed(self, seat: str, put: object, removed: object) -> None: ...

    def seat_gone(self, seat: str) -> None: ...

    def resynced(self, seats: object) -> None: ...
