"""What waits for a room's fan-out has two bounds and a share in the budget; nothing goes missing but what is told."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Sequence
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trioroom._core.budget import Budget
from trioroom.backplane.base import Delivery, Lost
from trioroom.backplane.room_channel import RoomChannel, weight
from trioroom.testing import cancel_at_step
from trioroom.testing.conformance import make_channel

GAP = Lost("backplane")
ONE = weight(b"1")


def take(channel: RoomChannel, most: int = 1_000) -> list[Delivery]:
    taken: list[Delivery] = []
    try:
        while len(taken) < most:
            taken.append(channel.receive_nowait())
    except trio.WouldBlock:
        pass
    return taken


async def put_in_turn(nursery: trio.Nursery, channel: RoomChannel, *deliveries: Delivery) -> None:
    """A putter for each, each as far as it gets before the next one starts."""
    for delivery in deliveries:
        nursery.start_soon(channel.put, delivery)
        await wait_all_tasks_blocked()


# -- how much there is room for --------------------------------------------------------------------


@pytest.mark.parametrize(
    "channel",
    [make_channel(3), make_channel(100, 3 * ONE), RoomChannel(100, math.inf, Budget(3 * ONE))],
    ids=["publications", "bytes", "budget"],
)
def test_channel_is_full_at_its_bound(channel: RoomChannel) -> None:
    with channel:
        assert [channel.put_nowait(b"%d" % number) for number in range(5)] == [True, True, True, False, False]
        assert (len(channel), channel.queued_bytes) == (3, 3 * ONE)
        assert channel.receive_nowait() == b"0"
        assert [channel.put_nowait(b"3"), channel.put_nowait(b"4")] == [True, False]
        assert take(channel) == [b"1", b"2", b"3"]
        assert (len(channel), channel.queued_bytes) == (0, 0)


def test_one_publication_fits_always() -> None:
    budget = Budget(10)
    with RoomChannel(1, 10, budget) as one, RoomChannel(1, 10, budget) as two:
        for channel in (one, two):
            assert channel.put_nowait(bytes(1_000))
            assert not channel.put_nowait(b"")
        assert budget.used == 2 * weight(bytes(1_000))


def test_outboxes_go_when_the_budget_is_used_up() -> None:
    budget = Budget(10 * ONE)

    class Outbox:
        queued_bytes = 9 * ONE

    budget.add(Outbox.queued_bytes)
    budget.open(Outbox(), partial(budget.remove, Outbox.queued_bytes))
    with RoomChannel(100, math.inf, budget) as channel:
        assert channel.put_nowait(b"0")
        assert budget.dropped == 0
        assert channel.put_nowait(b"1")
        assert (budget.dropped, budget.used) == (1, 2 * ONE)


def test_closing_gives_back_what_waits_and_keeps_nothing_more() -> None:
    budget = Budget(math.inf)
    with RoomChannel(1, math.inf, budget) as channel:
        channel.put_nowait(b"0")
    channel.close()
    assert channel.put_nowait(b"1")
    channel.offer(b"2")
    assert (len(channel), channel.queued_bytes, budget.used) == (0, 0, 0)
    with pytest.raises(trio.ClosedResourceError):
        channel.receive_nowait()


@pytest.mark.parametrize("size", [100, 10_000])
def test_what_is_charged_is_what_is_there(size: int) -> None:
    budget = Budget(math.inf)
    with RoomChannel(10_000, math.inf, budget) as channel:
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(2_000):
                channel.put_nowait(bytes(size))
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert budget.used == pytest.approx(after - before, rel=0.1)


# -- offering --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bounds", [(2, math.inf), (100, 2 * weight(b"1"))], ids=["publications", "bytes"])
@pytest.mark.parametrize(
    ("offered", "received"),
    [
        ([b"1", b"2"], [b"1", b"2"]),
        ([b"1", b"2", b"3"], [Lost("overflow", 3)]),
        ([b"1", b"2", b"3", b"4"], [Lost("overflow", 3), b"4"]),
        ([b"1", b"2", b"3", b"4", b"5"], [Lost("overflow", 5)]),
        ([b"1", Lost("backplane", 7), b"2"], [Lost("overflow", 9)]),
        ([b"1", b"2", Lost("backplane", 7)], [Lost("overflow", 9)]),
        ([b"1", GAP, b"2"], [Lost("overflow", None)]),
        ([b"1", b"2", GAP], [Lost("overflow", None)]),
        ([GAP, b"2", b"3", b"4", b"5"], [Lost("overflow", None)]),
    ],
)
def test_overflow_drops_the_backlog_and_tells_how_much_it_was(
    offered: Sequence[Delivery], received: Sequence[Delivery], bounds: tuple[int, float]
) -> None:
    with make_channel(*bounds) as channel:
        for delivery in offered:
            channel.offer(delivery)
        assert take(channel) == received


def test_overflow_of_the_budget_costs_the_backlog_too() -> None:
    budget = Budget(3 * ONE)
    with RoomChannel(100, math.inf, budget) as fat, RoomChannel(100, math.inf, budget) as thin:
        for delivery in (b"1", b"2"):
            fat.offer(delivery)
        for delivery in (b"1", b"2"):
            thin.offer(delivery)
        assert take(thin) == [Lost("overflow", 2)]
        assert take(fat) == [b"1", b"2"]


DELIVERIES = st.one_of(st.binary(max_size=5), st.builds(Lost, st.just("backplane"), st.integers(0, 5)))


@given(st.integers(1, 4), st.integers(1, 4 * ONE), st.lists(st.one_of(DELIVERIES, st.integers(1, 3))))
def test_every_publication_is_received_or_counted(
    max_publications: int, max_bytes: int, steps: list[Delivery | int]
) -> None:
    def worth(deliveries: list[Delivery]) -> int:
        return sum((each.count or 0) if isinstance(each, Lost) else 1 for each in deliveries)

    budget = Budget(math.inf)
    offered: list[Delivery] = []
    received: list[Delivery] = []
    with RoomChannel(max_publications, max_bytes, budget) as channel:
        for step in steps:
            if isinstance(step, int):
                received += take(channel, step)
            else:
                offered.append(step)
                channel.offer(step)
            assert len(channel) <= max_publications
            assert channel.queued_bytes == budget.used
            assert channel.queued_bytes <= max_bytes or len(channel) == 1
        assert worth(received + take(channel)) == worth(offered)
        assert budget.used == 0


# -- waiting ---------------------------------------------------------------------------------------


async def test_putters_wait_in_the_order_they_came() -> None:
    with make_channel(2) as channel:
        async with trio.open_nursery() as nursery:
            await put_in_turn(nursery, channel, b"0", b"1", b"2", b"3")
            assert len(nursery.child_tasks) == 2
            assert channel.receive_nowait() == b"0"
            assert not channel.put_nowait(b"4")  # 2 has its place, though its task has not run since
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            assert take(channel) == [b"1", b"2", b"3"]


async def test_small_one_does_not_overtake_a_large_one_that_waits() -> None:
    with make_channel(100, weight(bytes(200)) + 1) as channel:
        async with trio.open_nursery() as nursery:
            large = bytes(200)
            await put_in_turn(nursery, channel, b"0", large, b"2")
            assert len(nursery.child_tasks) == 2
            assert [channel.receive_nowait() for _ in range(3)] == [b"0", large, b"2"]


async def test_small_one_goes_on_when_a_large_one_gives_up() -> None:
    with make_channel(100, 200) as channel:
        async with trio.open_nursery() as nursery, trio.open_nursery() as giving_up:
            await put_in_turn(giving_up, channel, b"0", bytes(200))
            await put_in_turn(nursery, channel, b"2")
            assert len(channel) == 1
            giving_up.cancel_scope.cancel()
        assert take(channel) == [b"0", b"2"]


async def test_receiver_waits_on_when_what_woke_it_is_taken_before_it_runs() -> None:
    received: list[Delivery] = []

    async def receive() -> None:
        received.append(await channel.receive())

    with make_channel(10) as channel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            channel.put_nowait(b"0")
            assert channel.receive_nowait() == b"0"  # before the one that was woken could
            await wait_all_tasks_blocked()
            assert received == []
            await channel.put(b"1")
        assert received == [b"1"]


async def test_one_task_receives_at_a_time() -> None:
    with make_channel(10) as channel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.receive)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError, match="another task receives"):
                await channel.receive()
            nursery.cancel_scope.cancel()
        channel.put_nowait(b"0")
        assert await channel.receive() == b"0", "the one that was cancelled is in nobody's way"


def test_idle_channel_takes_little() -> None:
    budget = Budget(math.inf)
    tracemalloc.start()
    try:
        channels = [RoomChannel(10, math.inf, budget) for _ in range(100)]
        for channel in channels:
            channel.put_nowait(b"0")
            channel.receive_nowait()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used / len(channels) < 200


async def test_closing_ends_all_waiting() -> None:
    with make_channel(1) as full, make_channel(1) as empty:
        async with trio.open_nursery() as nursery:
            await put_in_turn(nursery, full, b"0", b"1", b"2")
            full.close()
        with pytest.RaisesGroup(trio.ClosedResourceError):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(empty.receive)
                await wait_all_tasks_blocked()
                empty.close()


async def test_every_path_is_a_checkpoint() -> None:
    with make_channel(1) as channel:
        with assert_checkpoints():
            await channel.put(b"0")
        with assert_checkpoints():
            assert await channel.receive() == b"0"
        channel.close()
        with assert_checkpoints():
            await channel.put(b"1")
        with assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
            await channel.receive()


async def test_cancelled_calls_take_and_put_nothing() -> None:
    for step in itertools.count():
        put: list[int] = []
        received: list[Delivery] = []

        async def put_numbers(channel: RoomChannel, put: list[int]) -> None:
            for number in range(5):
                await channel.put(b"%d" % number)
                put.append(number)

        async def receive(channel: RoomChannel, received: list[Delivery]) -> None:
            for _ in range(5):
                received.append(await channel.receive())

        budget = Budget(math.inf)
        with RoomChannel(2, math.inf, budget) as channel:
            with cancel_at_step(step) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(put_numbers, channel, put)
                    await wait_all_tasks_blocked()
                    nursery.start_soon(receive, channel, received)
            assert received + take(channel) == [b"%d" % number for number in put]
        assert budget.used == 0
        if not scope.cancelled_caught:
            break
    assert step > 10
