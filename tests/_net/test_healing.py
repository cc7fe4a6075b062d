"""The stage between channel and fan-out: in order, once, and what cannot be had is a loss in its place."""

from __future__ import annotations

import math

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from tests._net.losing_store import SIZE, Store
from trioroom._core.history import History, Kept, Position
from trioroom._net.healing import Healed, HealingChannel, Turn
from trioroom.backplane.base import Lost
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing.conformance import make_channel

HISTORY = History(8)


class Scene:
    def __init__(self, capacity: int = 100, holes: list[int] | None = None) -> None:
        self.store = Store(holes)
        self.channel = make_channel(capacity)
        self.store.channels.append(self.channel)
        self.healing = HealingChannel(self.store, "room/a", HISTORY, self.channel)

    async def publish(self, *payloads: bytes, deliveries: int = 1) -> None:
        for payload in payloads:
            self.store.deliveries = deliveries
            self.healing.confirm(await self.store.publish("room/a", payload, HISTORY))

    async def receive_all(self) -> list[Healed]:
        """Until nothing comes."""
        received: list[Healed] = []
        with trio.move_on_after(1):
            while True:
                received.append(await self.healing.receive())
        return received


@pytest.fixture
async def scene() -> Scene:
    scene = Scene()
    await scene.healing.begin()
    return scene


def kept(epoch: int, *publications: tuple[int, bytes]) -> list[Kept]:
    return [Kept(str(epoch), offset, payload) for offset, payload in publications]


async def test_what_comes_in_order_passes_at_once(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.publish(b"a", b"b")
    assert [scene.healing.receive_nowait() for _ in range(2)] == kept(0, (1, b"a"), (2, b"b"))
    with pytest.raises(trio.WouldBlock):
        scene.healing.receive_nowait()


async def test_receive_is_always_a_checkpoint(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.publish(b"a")
    await scene.publish(b"b", deliveries=0)
    await scene.publish(b"c")
    for expected in kept(0, (1, b"a"), (2, b"b"), (3, b"c")):
        with assert_checkpoints():
            assert await scene.healing.receive() == expected


async def test_what_comes_twice_passes_once(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.publish(b"a", b"b", deliveries=3)
    assert await scene.receive_all() == kept(0, (1, b"a"), (2, b"b"))


async def test_hole_is_read_from_the_history_before_what_follows_it(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.publish(b"a", b"b", deliveries=0)
    await scene.publish(b"c")
    with pytest.raises(trio.WouldBlock):  # it has to be read
        scene.healing.receive_nowait()
    assert await scene.receive_all() == kept(0, (1, b"a"), (2, b"b"), (3, b"c"))


@pytest.mark.parametrize("reason", ["overflow", "backplane"])
async def test_loss_is_healed_without_waiting_for_another_publication(
    scene: Scene, autojump_clock: MockClock, reason: str
) -> None:
    await scene.publish(b"a", deliveries=0)
    scene.store.interrupt(reason)
    assert await scene.receive_all() == kept(0, (1, b"a"))


async def test_what_the_history_does_not_hold_is_a_loss_with_its_number(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.publish(b"a")
    await scene.publish(b"b", b"c", deliveries=0)
    scene.store.forget(2)
    await scene.publish(b"d")
    turn = Turn(Position("0", 2), None, Lost("expired", 1))
    assert await scene.receive_all() == [*kept(0, (1, b"a")), turn, *kept(0, (3, b"c"), (4, b"d"))]


async def test_epoch_that_goes_on_is_no_loss(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.publish(b"a")
    scene.store.restart(0)
    await scene.publish(b"b")
    turn = Turn(Position("1", 1), Position("0", 1), None)
    assert await scene.receive_all() == [*kept(0, (1, b"a")), turn, *kept(1, (2, b"b"))]


async def test_epoch_that_knows_nothing_of_ours_is_a_loss_of_unknown_size(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.publish(b"a")
    scene.store.flush()
    await scene.publish(b"b")
    turn = Turn(Position("1", 0), None, Lost("backplane"))
    assert await scene.receive_all() == [*kept(0, (1, b"a")), turn, *kept(1, (1, b"b"))]


async def test_store_that_lacks_what_it_has_confirmed_begins_another_epoch(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.publish(b"a")
    assert await scene.receive_all() == kept(0, (1, b"a"))
    await scene.publish(b"confirmed", deliveries=0)
    scene.store.restart(lost=1)
    turn = Turn(Position("2", 1), None, Lost("backplane"))
    assert await scene.receive_all() == [turn]


async def test_store_that_is_away_is_asked_until_it_is_back(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.publish(b"a", deliveries=0)
    scene.store.is_up = False
    scene.store.interrupt("backplane")
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def come_back() -> None:
            await trio.sleep(60)
            scene.store.is_up = True

        nursery.start_soon(come_back)
        assert await scene.healing.receive() == kept(0, (1, b"a"))[0]
        assert trio.current_time() - began == pytest.approx(60, abs=1)


async def test_what_two_epochs_share_is_not_passed_on_again_when_the_first_is_unknown(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.publish(b"a", b"b")
    assert await scene.receive_all() == kept(0, (1, b"a"), (2, b"b"))
    scene.store.restart(0)
    await scene.store.publish("room/a", b"c", HISTORY)  # of the epoch that we never see
    scene.store.restart(0)
    await scene.store.publish("room/a", b"d", HISTORY)
    turn = Turn(Position("2", 3), Position("1", 3), Lost("backplane"))
    assert await scene.receive_all() == [turn, *kept(2, (4, b"d"))]


async def test_confirmed_publication_that_is_lost_while_another_read_is_under_way_is_told(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.publish(b"a")
    assert await scene.receive_all() == kept(0, (1, b"a"))

    async def lose_what_is_confirmed() -> None:
        await scene.publish(b"b", deliveries=0)
        scene.store.restart(lost=1)

    scene.store.before_read = lose_what_is_confirmed
    scene.store.interrupt("backplane")
    [turn] = await scene.receive_all()
    assert isinstance(turn, Turn)
    assert turn.lost == Lost("backplane")


@pytest.mark.parametrize("delivered", [0, 1])
async def test_confirmed_publication_that_is_lost_is_told_though_the_next_epoch_has_confirmed_others(
    scene: Scene, autojump_clock: MockClock, delivered: int
) -> None:
    await scene.publish(b"a")
    assert await scene.receive_all() == kept(0, (1, b"a"))
    await scene.publish(b"lost", deliveries=0)
    scene.store.restart(lost=1)
    await scene.publish(b"b", deliveries=delivered)
    received = await scene.receive_all()
    assert isinstance(received[0], Turn)
    assert received[0].lost == Lost("backplane")


@pytest.mark.parametrize("restarts", [1, 2])
async def test_confirmation_that_comes_after_its_epoch_has_ended_is_told_as_a_loss(
    scene: Scene, autojump_clock: MockClock, restarts: int
) -> None:
    await scene.publish(b"a")
    late = await scene.store.publish("room/a", b"lost", HISTORY)
    scene.channel.receive_nowait(), scene.channel.receive_nowait()  # deliveries that the broker's end took along
    for lost in (1, 0)[:restarts]:
        scene.store.restart(lost)
        await scene.receive_all()
    scene.healing.confirm(late)
    [turn] = await scene.receive_all()
    assert isinstance(turn, Turn)
    assert turn.lost == Lost("backplane")


async def test_confirmation_that_the_next_epoch_has_too_is_no_loss(scene: Scene, autojump_clock: MockClock) -> None:
    late = await scene.store.publish("room/a", b"a", HISTORY)
    scene.store.restart(0)
    assert await scene.receive_all() == [*kept(0, (1, b"a")), Turn(Position("1", 1), Position("0", 1), None)]
    scene.healing.confirm(late)
    assert await scene.receive_all() == []


async def test_what_a_full_channel_dropped_and_the_store_then_lost_is_told(autojump_clock: MockClock) -> None:
    scene = Scene(capacity=1)
    await scene.healing.begin()
    for payload in (b"a", b"b", b"c"):  # from another node: nothing is confirmed to us
        await scene.store.publish("room/a", payload, HISTORY)
    scene.store.restart(lost=2)
    received = await scene.receive_all()
    assert received == [Turn(Position("2", 1), None, Lost("overflow"))]


async def test_what_says_that_it_follows_passes_without_a_read(autojump_clock: MockClock) -> None:
    scene = Scene(holes=[3])
    await scene.healing.begin()
    await scene.publish(b"a", b"b", deliveries=2)
    received = [scene.healing.receive_nowait() for _ in range(2)]
    assert [(each.offset, each.payload) for each in received if isinstance(each, Kept)] == [(1, b"a"), (5, b"b")]
    with pytest.raises(trio.WouldBlock):
        scene.healing.receive_nowait()
    assert scene.healing._behind is None


async def test_hole_between_two_that_follow_each_other_is_none_and_any_other_is(autojump_clock: MockClock) -> None:
    scene = Scene(holes=[3])
    await scene.healing.begin()
    await scene.publish(b"a")
    await scene.publish(b"b", deliveries=0)
    await scene.publish(b"c")
    received = [each for each in await scene.receive_all() if isinstance(each, Kept)]
    assert [(kept.offset, kept.payload) for kept in received] == [(1, b"a"), (5, b"b"), (9, b"c")]


async def test_how_many_are_lost_is_told_only_where_offsets_count(autojump_clock: MockClock) -> None:
    scene = Scene(holes=[3])
    await scene.healing.begin()
    await scene.publish(b"a", b"b", b"c", deliveries=0)
    scene.store.forget(2)
    scene.store.interrupt("backplane")
    turn, kept, end = await scene.receive_all()
    assert turn == Turn(Position("0", 5), None, Lost("expired"))
    assert isinstance(kept, Kept)
    assert (kept.offset, kept.payload) == (9, b"c")
    assert end == Turn(Position("0", 12), None, None)


async def test_end_that_other_rooms_have_moved_is_no_loss(autojump_clock: MockClock) -> None:
    scene = Scene(holes=[3])
    await scene.healing.begin()
    await scene.publish(b"a")
    scene.store.interrupt("backplane")
    assert await scene.receive_all() == [
        Kept("0", 1, b"a", follows=0),
        Turn(Position("0", 4), None, None),
    ]
    await scene.publish(b"b")
    assert scene.healing.receive_nowait() == Kept("0", 5, b"b", follows=1)


DELIVERIES = st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=20)
HOLES = st.none() | st.lists(st.integers(0, 3), min_size=1, max_size=5)


@given(deliveries=DELIVERIES, holes=HOLES)
def test_whatever_is_delivered_all_pass_once_and_in_order(
    deliveries: list[tuple[int, bool]], holes: list[int] | None
) -> None:
    """Each of them so often, and it may be told before it that something is lost."""

    async def course() -> None:
        scene, passed = Scene(holes=holes), []
        await scene.healing.begin()
        for number, (times, interrupted) in enumerate(deliveries):
            if interrupted:
                scene.store.interrupt("backplane")
            await scene.publish(b"%d" % number, deliveries=times)
            if number % SIZE == SIZE - 1:
                scene.healing.look_again()
                passed += await scene.receive_all()
        scene.healing.look_again()
        passed += await scene.receive_all()
        assert all(each.lost is None for each in passed if isinstance(each, Turn))
        payloads = [each.payload for each in passed if isinstance(each, Kept)]
        assert payloads == [b"%d" % number for number in range(len(deliveries))]

    trio.run(course, clock=MockClock(autojump_threshold=0))


async def test_closed_channel_ends_it(scene: Scene, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await scene.healing.receive()

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        scene.channel.close()
    with pytest.raises(trio.ClosedResourceError):
        scene.healing.receive_nowait()


def test_history_has_a_size_and_a_ttl() -> None:
    assert History(5).ttl == 300
    for size, ttl in ((0, 1.0), (-1, 1.0), (5, 0.0), (5, math.inf)):
        with pytest.raises(ValueError, match=r"size|ttl"):
            History(size, ttl)
    with pytest.raises(TypeError, match="size"):
        History(2.5)  # type: ignore[arg-type]  # which is what is tested


@pytest.mark.parametrize(("max_age", "count"), [(0.0, 0), (0.25, 2), (45.05, 450), (100.0, 700)])
async def test_begins_with_what_is_young_enough(max_age: float, count: int, autojump_clock: MockClock) -> None:
    store, history = MemoryBackplane().history, History(1_000)
    assert store is not None
    for number in range(700):
        await store.publish("room/a", b"%d" % number, history)
        await trio.sleep(0.1)
    healing = HealingChannel(store, "room/a", history, make_channel(100))
    assert (await healing.begin(max_age)).position.offset == 700
    received: list[Healed] = []
    with trio.move_on_after(1):
        while True:
            received.append(await healing.receive())
    assert [each.offset for each in received if isinstance(each, Kept)] == [*range(701 - count, 701)]
    assert len(received) == count
