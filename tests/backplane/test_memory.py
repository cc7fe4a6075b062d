"""The embedded backplane: what all backplanes promise, and who comes first when a subscription is full."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import attrs
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from trioroom.backplane.base import Backplane, Delivery, Lost
from trioroom.backplane.memory import MemoryBackplane
from trioroom.backplane.room_channel import RoomChannel
from trioroom.testing import BackplaneConformance
from trioroom.testing.conformance import subscribed

ROOM = "room/a"


class TestConformance(BackplaneConformance):
    @asynccontextmanager
    async def open_nodes(self, count: int) -> AsyncIterator[Sequence[Backplane]]:
        yield [MemoryBackplane()] * count  # one process is one node


@asynccontextmanager
async def open_room(*capacities: int) -> AsyncIterator[tuple[MemoryBackplane, trio.Nursery, list[RoomChannel]]]:
    """A backplane, a nursery for its publishers, and subscriptions of one room."""
    backplane = MemoryBackplane()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
            opened = [subscribed(backplane, ROOM, capacity) for capacity in capacities]
            yield backplane, nursery, [await stack.enter_async_context(subscription) for subscription in opened]


async def start_in_turn(nursery: trio.Nursery, backplane: MemoryBackplane, *payloads: bytes) -> None:
    """A publisher for each payload, each as far as it gets before the next one starts."""
    for payload in payloads:
        nursery.start_soon(backplane.publish, ROOM, payload)
        await wait_all_tasks_blocked()


def take(subscription: RoomChannel, most: int = 1_000) -> list[Delivery]:
    """What waits in the channel; publishers that wait for room move up meanwhile."""
    taken: list[Delivery] = []
    try:
        while len(taken) < most:
            taken.append(subscription.receive_nowait())
    except trio.WouldBlock:
        pass
    return taken


async def test_full_subscription_keeps_publishers_waiting_in_the_order_they_came() -> None:
    async with open_room(2) as (backplane, nursery, [subscription]):
        await start_in_turn(nursery, backplane, b"0", b"1", b"2", b"3", b"4", b"5")
        assert len(nursery.child_tasks) == 4
        received: list[Delivery] = []
        for waiting in (3, 2, 1, 0):
            received.append(subscription.receive_nowait())
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == waiting
        assert received + take(subscription) == [b"0", b"1", b"2", b"3", b"4", b"5"]


async def test_newcomer_does_not_overtake_those_who_wait() -> None:
    async with open_room(1) as (backplane, nursery, [subscription]):
        await start_in_turn(nursery, backplane, b"0", b"1", b"2")
        first = subscription.receive_nowait()  # lets 1 in, whose task has not run since
        nursery.start_soon(backplane.publish, ROOM, b"3")
        assert [first, *[await subscription.receive() for _ in range(3)]] == [b"0", b"1", b"2", b"3"]


async def test_full_subscription_keeps_the_order_of_those_that_are_not() -> None:
    async with open_room(1, 100) as (backplane, nursery, [narrow, wide]):
        for number in range(8):
            nursery.start_soon(backplane.publish, ROOM, b"%d" % number)
        received = [await narrow.receive() for _ in range(8)]
        await wait_all_tasks_blocked()
        assert take(wide) == received


async def test_full_subscription_holds_up_later_publications_only() -> None:
    async with open_room(1, 100) as (backplane, nursery, [narrow, wide]):
        await start_in_turn(nursery, backplane, b"0", b"1", b"2", b"3")
        assert take(wide) == [b"0", b"1"]
        assert narrow.receive_nowait() == b"0"
        await wait_all_tasks_blocked()
        assert take(wide) == [b"2"]


async def test_unsubscribing_lets_waiting_publishers_go_on_to_the_others() -> None:
    async with open_room(100) as (backplane, nursery, [other]):
        async with subscribed(backplane, ROOM, 1):
            await start_in_turn(nursery, backplane, b"0", b"1", b"2", b"3")
            assert take(other) == [b"0", b"1"]
        await wait_all_tasks_blocked()
        assert not nursery.child_tasks
        assert take(other) == [b"2", b"3"]


async def test_publisher_does_not_overtake_those_who_waited_for_one_that_has_left() -> None:
    async with open_room(100) as (backplane, nursery, [before]):
        async with subscribed(backplane, ROOM, 1):
            await start_in_turn(nursery, backplane, b"0", b"1", b"2")
            after = subscribed(backplane, ROOM, 100)
            late = await after.__aenter__()
        nursery.start_soon(backplane.publish, ROOM, b"3")
        await wait_all_tasks_blocked()
        assert take(before) == [b"0", b"1", b"2", b"3"]
        assert take(late) == [b"2", b"3"]
        await after.__aexit__(None, None, None)


async def test_room_can_be_subscribed_anew_while_publishers_of_the_old_one_go() -> None:
    async with open_room() as (backplane, nursery, _):
        async with subscribed(backplane, ROOM, 1):
            await start_in_turn(nursery, backplane, b"old", b"older", b"oldest")
        async with subscribed(backplane, ROOM, 2) as subscription:
            await backplane.publish(ROOM, b"new")
            assert take(subscription) == [b"oldest", b"new"]  # it had not had its turn before


async def test_closing_the_channel_inside_of_the_context_counts_as_leaving() -> None:
    async with open_room(1, 1) as (backplane, _, [closed, other]):
        closed.close()
        for payload in (b"0", b"1"):
            await backplane.publish(ROOM, payload)
            assert take(other) == [payload]


async def test_publishers_that_are_cancelled_while_they_wait_lose_their_place_only() -> None:
    async with open_room(1) as (backplane, nursery, [subscription]):
        scopes = [trio.CancelScope() for _ in range(5)]

        async def publish(number: int) -> None:
            with scopes[number]:
                await backplane.publish(ROOM, b"%d" % number)

        for number in range(5):
            nursery.start_soon(publish, number)
            await wait_all_tasks_blocked()
        scopes[1].cancel()  # it has the turn
        scopes[3].cancel()  # it waits for the turn
        await wait_all_tasks_blocked()
        assert [await subscription.receive() for _ in range(3)] == [b"0", b"2", b"4"]
        await wait_all_tasks_blocked()
        assert take(subscription) == []  # nobody else got them: nothing to tell


async def test_those_who_missed_what_others_got_are_told_before_the_next_publication() -> None:
    async with open_room(100, 1, 1) as (backplane, nursery, [wide, full, full_too]):
        await backplane.publish(ROOM, b"0")
        for payload in (b"1", b"2"):
            async with trio.open_nursery() as cancelled:
                await start_in_turn(cancelled, backplane, payload)
                cancelled.cancel_scope.cancel()
        await start_in_turn(nursery, backplane, b"3", b"4")
        assert [await full.receive() for _ in range(2)] == [b"0", Lost("overflow", 2)]
        assert [await full_too.receive() for _ in range(2)] == [b"0", Lost("overflow", 2)]
        assert [await full.receive() for _ in range(2)] == [b"3", b"4"]
        assert [await full_too.receive() for _ in range(2)] == [b"3", b"4"]
        assert take(wide) == [b"0", b"1", b"2", b"3", b"4"]


async def test_of_two_full_ones_the_second_is_told_what_only_the_first_got() -> None:
    async with open_room(1, 1) as (backplane, nursery, [first, second]):
        await backplane.publish(ROOM, b"0")
        async with trio.open_nursery() as cancelled:
            await start_in_turn(cancelled, backplane, b"1")
            assert first.receive_nowait() == b"0"
            await wait_all_tasks_blocked()
            cancelled.cancel_scope.cancel()
        await start_in_turn(nursery, backplane, b"2")
        assert [await first.receive() for _ in range(2)] == [b"1", b"2"]
        assert [await second.receive() for _ in range(3)] == [b"0", Lost("overflow", 1), b"2"]


async def test_publication_that_nobody_had_when_it_was_cancelled_can_be_tried_again() -> None:
    async with open_room(1, 1) as (backplane, nursery, [first, second]):
        await backplane.publish(ROOM, b"0")
        async with trio.open_nursery() as cancelled:
            cancelled.start_soon(backplane.publish, ROOM, b"1", "id")
            await wait_all_tasks_blocked()
            cancelled.cancel_scope.cancel()
        for _ in range(2):
            nursery.start_soon(backplane.publish, ROOM, b"1", "id")
            await wait_all_tasks_blocked()
        for subscription in (first, second):
            assert [await subscription.receive() for _ in range(2)] == [b"0", b"1"]
        await wait_all_tasks_blocked()
        assert (take(first), take(second)) == ([], [])


async def test_publication_that_one_had_when_it_was_cancelled_is_not_tried_again() -> None:
    async with open_room(1, 100) as (backplane, _, [narrow, wide]):
        await backplane.publish(ROOM, b"0")
        async with trio.open_nursery() as cancelled:
            cancelled.start_soon(backplane.publish, ROOM, b"1", "id")
            await wait_all_tasks_blocked()
            cancelled.cancel_scope.cancel()
        await backplane.publish(ROOM, b"1", "id")
        assert (take(narrow), take(wide)) == ([b"0"], [b"0", b"1"])


async def test_what_has_been_forgotten_may_be_published_again_to_those_who_are_still_there() -> None:
    async with open_room(10) as (backplane, _, [subscription]):
        for _ in range(2):
            await backplane.publish(ROOM, b"1", "id")
        backplane.forget_all()
        await backplane.publish(ROOM, b"1", "id")
        assert take(subscription) == [b"1", b"1"]


async def test_publication_id_counts_though_nobody_was_there() -> None:
    backplane = MemoryBackplane()
    await backplane.publish(ROOM, b"0", "id")
    async with subscribed(backplane, ROOM, 1) as subscription:
        await backplane.publish(ROOM, b"0", "id")
        assert take(subscription) == []


OPERATIONS = st.tuples(st.sampled_from(["publish", "read", "subscribe", "leave"]), st.integers(0, 3))


@attrs.define
class Reader:
    """A subscription under test: it must see all from some number on, without a hole."""

    context: AbstractAsyncContextManager[RoomChannel]
    subscription: RoomChannel
    first: range
    """The first number it gets is one of these: which publications had begun, but not ended, when it came."""
    received: list[Delivery] = attrs.field(factory=list)

    def check(self) -> None:
        self.received += take(self.subscription)
        if self.received:
            first = int(self.received[0])  # type: ignore[arg-type]  # no loss, for nobody is cancelled
            assert first in self.first
            assert self.received == [b"%d" % number for number in range(first, first + len(self.received))]


@settings(max_examples=settings().max_examples * 2)
@given(st.lists(OPERATIONS, max_size=40))
async def test_each_subscriber_sees_all_that_comes_between_its_coming_and_going(
    operations: list[tuple[str, int]],
) -> None:
    readers: dict[int, Reader] = {}
    published = 0
    async with open_room() as (backplane, nursery, _):
        for operation, slot in operations:
            if operation == "publish":
                await start_in_turn(nursery, backplane, b"%d" % published)
                published += 1
            elif operation == "subscribe" and slot not in readers:
                context = subscribed(backplane, ROOM, slot + 1)
                first = range(published - len(nursery.child_tasks), published + 1)
                readers[slot] = Reader(context, await context.__aenter__(), first)
            elif operation == "read" and slot in readers:
                readers[slot].received += take(readers[slot].subscription, slot + 1)
            elif operation == "leave" and slot in readers:
                reader = readers.pop(slot)
                reader.check()
                await reader.context.__aexit__(None, None, None)
        while nursery.child_tasks:
            for reader in readers.values():
                reader.received += take(reader.subscription)
            await wait_all_tasks_blocked()
        for reader in readers.values():
            reader.check()
            seen = reader.received[-1:] == [b"%d" % (published - 1)]
            assert seen or published in reader.first
            await reader.context.__aexit__(None, None, None)
