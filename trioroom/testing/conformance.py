"""What every backplane has to pass: the contract of `trioroom.backplane.base`, as tests.

Subclass `BackplaneConformance` in a test module, under a name that pytest collects, and say how nodes
are opened. The tests are coroutines for pytest-trio's ``trio_mode``; they use no fixtures and no
sleeps, so they run against memory and real brokers alike::

    class TestRedis(BackplaneConformance):
        @asynccontextmanager
        async def open_nodes(self, count):
            async with AsyncExitStack() as nodes:
                yield [await nodes.enter_async_context(open_redis(url)) for _ in range(count)]
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import trio
import trio.testing

from trioroom._core.budget import Budget
from trioroom.backplane.base import Backplane, Delivery, Lost
from trioroom.backplane.room_channel import RoomChannel, weight
from trioroom.testing.cancellation import cancel_at_step
from trioroom.testing.nodes import ConformanceSuite

ROOM = "conformance/room"
END = b"end"
CAPACITY = 256  # more than a test publishes, where it is not about full channels

PAYLOADS = (
    b"",
    b"\0",
    b"\r\n",
    b"*1\r\n$4\r\nPING\r\n",  # what a broker's own protocol might take for its own
    bytes(range(256)),
    b"\xff\xfe\xfd",
    bytes(range(256)) * 4096,  # 1 MiB
    b"after the large one",
)
NAMES = (
    "chat",
    "Chat",
    "chat/a",
    "chat/a/b",
    "chat.a",
    "chat:a",
    "chat/*",
    "chat/?",
    "chat/[ab]",
    "chat/>",
    "chat/{a}",
    "chat/ a ",
    "chat/a\r\nb",
    "chat/a\0b",
    "chat/%61",
    "chat/ä",
    "chat/a\u0308",  # the same to the eye
    "chat/😀",
    "/",
    "x" * 255,
)
"""Separators, patterns and escapes of brokers, names that differ by little, and the longest that is allowed."""


class BackplaneConformance(ConformanceSuite):
    """The suite. What a test publishes carries its place in the order, so that a loss can be told from an end."""

    # -- what arrives, and where ---------------------------------------------------------------

    async def test_is_ready_when_open(self) -> None:
        async with self.nodes(2) as nodes:
            assert [node.ready for node in nodes] == [True, True]

    async def test_publish_is_a_checkpoint(self) -> None:
        async with self.nodes(1) as (node,):
            with trio.testing.assert_checkpoints():
                await node.publish(ROOM, b"nobody hears it")

    async def test_every_subscriber_on_every_node_gets_a_publication_once(self) -> None:
        async with self.nodes(2) as (here, there), AsyncExitStack() as stack:
            subscriptions = [
                await stack.enter_async_context(subscribed(node, ROOM, CAPACITY)) for node in (here, here, there)
            ]
            await here.publish(ROOM, b"from here")
            await there.publish(ROOM, b"from there")
            await here.publish(ROOM, END)
            for subscription in subscriptions:
                assert await read_to_end(subscription) == [b"from here", b"from there"]

    async def test_payloads_arrive_as_they_are(self) -> None:
        async with self.nodes(2) as (here, there), subscribed(there, ROOM, CAPACITY) as subscription:
            for payload in PAYLOADS:
                await here.publish(ROOM, payload)
                assert await subscription.receive() == payload

    async def test_rooms_are_separate_whatever_their_names(self) -> None:
        async with self.nodes(2) as (here, there), AsyncExitStack() as stack:
            subscriptions = {name: await stack.enter_async_context(subscribed(there, name, CAPACITY)) for name in NAMES}
            for payload in (None, END):
                for name in NAMES:
                    await here.publish(name, payload or name.encode())
            for name, subscription in subscriptions.items():
                assert await read_to_end(subscription) == [name.encode()], f"room {name!r} got what is not its own"

    # -- order -----------------------------------------------------------------------------------

    async def test_all_subscribers_see_one_order(self) -> None:
        async with self.nodes(3) as nodes, AsyncExitStack() as stack:
            subscriptions = [await stack.enter_async_context(subscribed(node, ROOM, CAPACITY)) for node in nodes]
            async with trio.open_nursery() as nursery:
                for number, node in enumerate(nodes):
                    nursery.start_soon(publish_all, node, [b"%d %d" % (number, index) for index in range(40)])
            await nodes[0].publish(ROOM, END)
            orders = [await read_to_end(subscription) for subscription in subscriptions]
            assert orders[0] == orders[1] == orders[2]
            for number in range(3):
                own = [payload for payload in orders[0] if bytes_of(payload).startswith(b"%d " % number)]
                assert own == [b"%d %d" % (number, index) for index in range(40)], "one publisher's came out of order"

    # -- from when to when -------------------------------------------------------------------

    async def test_publication_id_that_was_used_does_nothing_again(self) -> None:
        async with self.nodes(2) as (here, there), subscribed(there, ROOM, CAPACITY) as channel:
            for node in (here, there, here):
                await node.publish(ROOM, b"once", "a")
            await here.publish(ROOM, b"other", "b")
            assert [await channel.receive() for _ in range(2)] == [b"once", b"other"]
            await here.publish("another/room", b"", "c")
            await here.publish(ROOM, b"here too", "c")
            assert await channel.receive() == b"here too"

    async def test_subscription_begins_when_it_is_entered(self) -> None:
        async with self.nodes(2) as (here, there):
            for round in range(10):
                await there.publish(ROOM, b"before")
                async with subscribed(here, ROOM, CAPACITY) as subscription:
                    await there.publish(ROOM, b"%d" % round)
                    await here.publish(ROOM, END)
                    assert await read_to_end(subscription) == [b"%d" % round]

    async def test_nothing_comes_after_leaving(self) -> None:
        async with self.nodes(1) as (node,):
            with make_channel(CAPACITY) as left:
                async with node.subscribe(ROOM, left):
                    pass
                await node.publish(ROOM, b"too late")
                assert len(left) == 0

    async def test_leaving_one_subscription_leaves_others_of_the_room(self) -> None:
        async with self.nodes(2) as (here, there), subscribed(here, ROOM, CAPACITY) as staying:
            for _ in range(10):
                async with subscribed(here, ROOM, CAPACITY):
                    pass
                await there.publish(ROOM, b"still here")
                assert await staying.receive() == b"still here"

    async def test_subscriptions_of_one_room_that_come_and_go_side_by_side(self) -> None:
        async with self.nodes(2) as (here, there), trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(self._come_and_go, (here, there)[number % 2], there, number)

    async def _come_and_go(self, own: Backplane, other: Backplane, number: int) -> None:
        for _ in range(8):
            async with subscribed(own, ROOM, CAPACITY) as subscription:
                for stay in range(1 + number):  # each another while, so that comings meet goings
                    payload = b"%d %d" % (number, stay)
                    await other.publish(ROOM, payload)
                    while await subscription.receive() != payload:
                        pass  # the others'

    # -- full --------------------------------------------------------------------------------------

    async def test_full_subscription_loses_nothing_in_silence(self) -> None:
        await self._overfill(4)

    async def test_subscription_that_is_full_by_bytes_loses_nothing_in_silence(self) -> None:
        await self._overfill(CAPACITY, 4 * weight(b"50"))

    async def _overfill(self, max_publications: int, max_bytes: float = math.inf) -> None:
        async with (
            self.nodes(2) as (here, there),
            subscribed(here, ROOM, max_publications, max_bytes) as subscription,
        ):
            all_published = trio.Event()

            async def publish() -> None:
                await publish_numbers(there, 50)
                all_published.set()

            async def end() -> None:
                await all_published.wait()
                await there.publish(ROOM, END)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish)
                nursery.start_soon(end)
                await trio.testing.wait_all_tasks_blocked()  # it waits for us, or for the broker
                deliveries = await read_to_end(subscription, end)
                nursery.cancel_scope.cancel()
            expected, told = 0, False
            for delivery in deliveries:
                if isinstance(delivery, Lost):
                    told = True
                else:
                    number = int(bytes_of(delivery))
                    assert number == expected or (told and number > expected), f"{expected} is missing: {deliveries}"
                    expected, told = number + 1, False
            assert expected == 50 or told, f"{expected} and what follows is missing: {deliveries}"

    async def test_full_subscription_holds_up_no_other_room(self) -> None:
        async with self.nodes(2) as (here, there), subscribed(here, ROOM, 1), trio.open_nursery() as nursery:
            nursery.start_soon(publish_numbers, here, 20)
            nursery.start_soon(publish_numbers, there, 20)
            await trio.testing.wait_all_tasks_blocked()
            async with subscribed(here, "another/room", CAPACITY) as other:
                for node in (here, there):
                    await node.publish("another/room", b"comes through")
                    assert await other.receive() == b"comes through"
            nursery.cancel_scope.cancel()

    async def test_publication_larger_than_the_bound_comes_through(self) -> None:
        async with self.nodes(1) as (node,), subscribed(node, ROOM, CAPACITY, max_bytes=10) as subscription:
            for number in range(3):
                payload = b"%d" % number * 1_000
                await node.publish(ROOM, payload)
                assert await subscription.receive() == payload

    async def test_closing_a_full_channel_frees_its_publishers(self) -> None:
        async with self.nodes(1) as (node,), trio.open_nursery() as nursery:
            async with subscribed(node, ROOM, 1):
                nursery.start_soon(publish_numbers, node, 10)
                nursery.start_soon(publish_numbers, node, 10)
                await trio.testing.wait_all_tasks_blocked()

    # -- cancellation ----------------------------------------------------------------------------

    async def test_subscribing_can_be_cancelled_at_any_moment(self) -> None:
        async with self.nodes(1) as (node,):
            for step in range(40):
                with make_channel(CAPACITY) as channel:
                    with cancel_at_step(step) as scope:
                        async with node.subscribe(ROOM, channel):
                            await node.publish(ROOM, b"to itself")
                            assert await channel.receive() == b"to itself"
                    waiting = len(channel)
                    async with subscribed(node, ROOM, CAPACITY) as fresh:
                        for payload in (b"a", b"b", END):
                            await node.publish(ROOM, payload)
                        assert await read_to_end(fresh) == [b"a", b"b"]
                    assert len(channel) == waiting, "a subscription is left behind"
                if not scope.cancelled_caught:
                    break

    async def test_publishing_can_be_cancelled_at_any_moment(self) -> None:
        async with self.nodes(1) as (node,):
            for step in range(40):
                async with subscribed(node, ROOM, CAPACITY) as wide, subscribed(node, ROOM, 2) as narrow:
                    with cancel_at_step(step) as scope:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(publish_numbers, node, 5)
                            nursery.start_soon(publish_numbers, node, 5, 5)
                            await trio.testing.wait_all_tasks_blocked()
                            scope.cancel()  # they wait for the narrow one, or for the broker
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(node.publish, ROOM, END)
                        partial = await read_to_end(narrow, lambda: node.publish(ROOM, END))
                        complete = await read_to_end(wide)
                        nursery.cancel_scope.cancel()
                    there_too = [payload for payload in complete if payload in partial]
                    assert there_too == [delivery for delivery in partial if not isinstance(delivery, Lost)]
                    told = any(isinstance(delivery, Lost) for delivery in partial)
                    assert told or len(there_too) == len(complete), f"{partial} lacks some of {complete}"


def make_channel(max_publications: int, max_bytes: float = math.inf) -> RoomChannel:
    """A channel with bounds of its own only."""
    return RoomChannel(max_publications, max_bytes, Budget(math.inf))


@asynccontextmanager
async def subscribed(
    backplane: Backplane, room: str, max_publications: int, max_bytes: float = math.inf
) -> AsyncIterator[RoomChannel]:
    """What is published to ``room``, in a channel that is closed when the context is left."""
    with make_channel(max_publications, max_bytes) as channel:
        async with backplane.subscribe(room, channel):
            yield channel


def bytes_of(delivery: Delivery) -> bytes:
    """What was published; a `Lost` has no business here."""
    assert isinstance(delivery, bytes), delivery
    return delivery


async def publish_all(node: Backplane, payloads: Iterable[bytes]) -> None:
    """Publish each in turn."""
    for payload in payloads:
        await node.publish(ROOM, payload)


async def publish_numbers(node: Backplane, count: int, start: int = 0) -> None:
    """Publish ``count`` numbers in turn."""
    await publish_all(node, (b"%d" % number for number in range(start, start + count)))


async def read_to_end(channel: RoomChannel, end_again: Callable[[], Awaitable[None]] | None = None) -> list[Delivery]:
    """What comes before `END`. A `Lost` may stand for that too, so ``end_again`` then publishes it once more."""
    deliveries: list[Delivery] = []
    async with trio.open_nursery() as nursery:
        while (delivery := await channel.receive()) != END:
            deliveries.append(delivery)
            if isinstance(delivery, Lost) and end_again is not None:
                nursery.start_soon(end_again)
        nursery.cancel_scope.cancel()
    return deliveries
