"""The conformance suite can fail: each broken backplane here breaks one promise, and is caught."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from trioroom.backplane.base import Backplane
from trioroom.backplane.memory import MemoryBackplane
from trioroom.backplane.room_channel import RoomChannel
from trioroom.testing import BackplaneConformance
from trioroom.testing.conformance import make_channel


class NeverReady(MemoryBackplane):
    @property
    def ready(self) -> bool:
        return False


class NoCheckpoint(MemoryBackplane):
    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        if payload != b"nobody hears it":
            await super().publish(room, payload)


class IgnoresCase(MemoryBackplane):
    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        await super().publish(room.lower(), payload)

    @asynccontextmanager
    async def subscribe(self, room: str, channel: RoomChannel) -> AsyncIterator[None]:
        async with super().subscribe(room.lower(), channel):
            yield


class TakesPayloadsForText(MemoryBackplane):
    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        await super().publish(room, payload.decode(errors="replace").encode())


class DropsEmptyPayloads(MemoryBackplane):
    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        await trio.lowlevel.checkpoint()
        if payload:
            await super().publish(room, payload)


class EachSubscriberInItsOwnTime(MemoryBackplane):
    """Publishers overtake each other between two subscribers."""

    count = 0

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        await trio.lowlevel.checkpoint()
        for number in range(self.count):
            await super().publish(f"{room}{number}", payload)

    @asynccontextmanager
    async def subscribe(self, room: str, channel: RoomChannel) -> AsyncIterator[None]:
        self.count += 1
        async with super().subscribe(f"{room}{self.count - 1}", channel):
            yield


class ForgetsIds(MemoryBackplane):
    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        await super().publish(room, payload)


class RemembersTheLast(MemoryBackplane):
    last = b""

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        self.last = payload
        await super().publish(room, payload)

    @asynccontextmanager
    async def subscribe(self, room: str, channel: RoomChannel) -> AsyncIterator[None]:
        async with super().subscribe(room, channel):
            await self.publish(room, self.last)
            yield


class StaysSubscribed(MemoryBackplane):
    def __init__(self) -> None:
        super().__init__()
        self.kept = AsyncExitStack()

    @asynccontextmanager
    async def subscribe(self, room: str, channel: RoomChannel) -> AsyncIterator[None]:
        await self.kept.enter_async_context(super().subscribe(room, channel))
        yield


class FirstToLeaveEndsAll(MemoryBackplane):
    ended = False

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        await trio.lowlevel.checkpoint()
        if not self.ended:
            await super().publish(room, payload)

    @asynccontextmanager
    async def subscribe(self, room: str, channel: RoomChannel) -> AsyncIterator[None]:
        async with super().subscribe(room, channel):
            self.ended = False
            yield
        await trio.lowlevel.checkpoint()  # meanwhile another one may come
        self.ended = True


class DropsWhatDoesNotFit(MemoryBackplane):
    @asynccontextmanager
    async def subscribe(self, room: str, channel: RoomChannel) -> AsyncIterator[None]:
        with make_channel(1_000) as wide:
            async with super().subscribe(room, wide), trio.open_nursery() as nursery:
                nursery.start_soon(self._relay, wide, channel)
                yield
                nursery.cancel_scope.cancel()

    async def _relay(self, wide: RoomChannel, channel: RoomChannel) -> None:
        while True:
            channel.put_nowait(await wide.receive())


class TakesNothingLarge(MemoryBackplane):
    @asynccontextmanager
    async def subscribe(self, room: str, channel: RoomChannel) -> AsyncIterator[None]:
        self.max_bytes = channel.max_bytes
        async with super().subscribe(room, channel):
            yield

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        await trio.lowlevel.checkpoint()
        if len(payload) <= self.max_bytes:
            await super().publish(room, payload)


class OneRoomAtATime(MemoryBackplane):
    def __init__(self) -> None:
        super().__init__()
        self.turn = trio.Lock()

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        async with self.turn:
            await super().publish(room, payload)


class KeepsCancelledSubscriptions(MemoryBackplane):
    def __init__(self) -> None:
        super().__init__()
        self.kept: list[AsyncExitStack] = []

    @asynccontextmanager
    async def subscribe(self, room: str, channel: RoomChannel) -> AsyncIterator[None]:
        stack = AsyncExitStack()
        self.kept.append(stack)
        await stack.enter_async_context(super().subscribe(room, channel))
        yield
        await stack.aclose()


class CancelledHalfway(MemoryBackplane):
    """A cancelled publication reaches those who have room, and the others never hear of it."""

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        subscribed = await self._rooms.take_turn(room)
        try:
            for subscription in list(subscribed.subscriptions):
                await subscription.put(payload)
        finally:
            self._rooms.end_turn(room, subscribed)


FAULTS: list[tuple[type[MemoryBackplane], str]] = [
    (NeverReady, "is_ready_when_open"),
    (NoCheckpoint, "publish_is_a_checkpoint"),
    (IgnoresCase, "rooms_are_separate_whatever_their_names"),
    (TakesPayloadsForText, "payloads_arrive_as_they_are"),
    (DropsEmptyPayloads, "payloads_arrive_as_they_are"),
    (EachSubscriberInItsOwnTime, "all_subscribers_see_one_order"),
    (ForgetsIds, "publication_id_that_was_used_does_nothing_again"),
    (RemembersTheLast, "subscription_begins_when_it_is_entered"),
    (StaysSubscribed, "nothing_comes_after_leaving"),
    (FirstToLeaveEndsAll, "leaving_one_subscription_leaves_others_of_the_room"),
    (FirstToLeaveEndsAll, "subscriptions_of_one_room_that_come_and_go_side_by_side"),
    (DropsWhatDoesNotFit, "full_subscription_loses_nothing_in_silence"),
    (DropsWhatDoesNotFit, "subscription_that_is_full_by_bytes_loses_nothing_in_silence"),
    (TakesNothingLarge, "publication_larger_than_the_bound_comes_through"),
    (OneRoomAtATime, "full_subscription_holds_up_no_other_room"),
    (KeepsCancelledSubscriptions, "subscribing_can_be_cancelled_at_any_moment"),
    (CancelledHalfway, "publishing_can_be_cancelled_at_any_moment"),
]


class Suite(BackplaneConformance):
    def __init__(self, backplane: Backplane) -> None:
        self.backplane = backplane

    @asynccontextmanager
    async def open_nodes(self, count: int) -> AsyncIterator[Sequence[Backplane]]:
        yield [self.backplane] * count


@pytest.mark.parametrize(("fault", "promise"), FAULTS)
async def test_broken_promise_is_caught(fault: type[MemoryBackplane], promise: str, autojump_clock: MockClock) -> None:
    caught: list[Exception] = []
    try:
        await getattr(Suite(fault()), f"test_{promise}")()
    except* (AssertionError, trio.TooSlowError, trio.WouldBlock) as group:
        caught += group.exceptions
    assert caught
