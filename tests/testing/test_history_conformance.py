"""The suite for histories can fail: each broken store here breaks one promise, and is caught."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from trioroom._core.history import History, Kept, Page, Position
from trioroom._core.publication_ids import PublicationIds
from trioroom.backplane.base import Backplane
from trioroom.backplane.memory import MemoryBackplane
from trioroom.backplane.memory_history import MemoryHistory
from trioroom.backplane.room_channel import RoomChannel
from trioroom.testing import HistoryConformance
from trioroom.testing.conformance import make_channel


class Store(MemoryHistory):
    def __init__(self) -> None:
        super().__init__(10_000_000, PublicationIds(300, 1_000))


class ForgetsIds(Store):
    async def publish(
        self, room: str, payload: bytes, history: History | None, publication_id: str | None = None
    ) -> Position | None:
        return await super().publish(room, payload, history)


class OneIdForAllRooms(Store):
    def __init__(self) -> None:
        super().__init__()
        self.used: dict[str, Position | None] = {}

    async def publish(
        self, room: str, payload: bytes, history: History | None, publication_id: str | None = None
    ) -> Position | None:
        if publication_id in self.used:
            return self.used[publication_id]
        position = await super().publish(room, payload, history)
        if publication_id is not None:
            self.used[publication_id] = position
        return position


class KeepsAll(Store):
    """As many as there are, as long as they want."""

    async def publish(
        self, room: str, payload: bytes, history: History | None, publication_id: str | None = None
    ) -> Position | None:
        return await super().publish(room, payload, history and History(10_000, 10_000), publication_id)

    async def read_after(
        self, room: str, history: History, offset: int | None, limit: int, *, seen: Position | None = None
    ) -> Page:
        return await super().read_after(room, History(10_000, 10_000), offset, limit, seen=seen)


class ReadsLateByOne(Store):
    async def read_after(
        self, room: str, history: History, offset: int | None, limit: int, *, seen: Position | None = None
    ) -> Page:
        return await super().read_after(room, history, offset and offset + 1, limit, seen=seen)


class FirstOfThoseBefore(Store):
    async def read_before(self, room: str, history: History, offset: int, limit: int) -> Page:
        page = await super().read_before(room, history, offset, 1_000)
        return Page(page.position, page.previous, page.start, page.kept[:limit])


class PagesWithoutBound(Store):
    async def read_after(
        self, room: str, history: History, offset: int | None, limit: int, *, seen: Position | None = None
    ) -> Page:
        page = await super().read_after(room, history, offset, limit, seen=seen)
        while page.kept and len(page.kept) < limit and page.kept[-1].offset < page.position.offset:
            more = await super().read_after(room, history, page.kept[-1].offset, limit - len(page.kept))
            page = Page(page.position, page.previous, page.start, page.kept + more.kept)
        return page


class DistrustsWhatWasSeen(Store):
    async def read_after(
        self, room: str, history: History, offset: int | None, limit: int, *, seen: Position | None = None
    ) -> Page:
        if seen is not None:
            seen = Position(seen.epoch, 1_000)
        return await super().read_after(room, history, offset, limit, seen=seen)


class DeliversBeforeItKeeps(Store):
    async def publish(
        self, room: str, payload: bytes, history: History | None, publication_id: str | None = None
    ) -> Position | None:
        subscribed = await self._rooms.take_turn(room)
        try:
            page = self._archive.read_after(room, history or History(1), None, 1, trio.current_time())
            position = Position(page.position.epoch, page.position.offset + 1)
            for subscription in list(subscribed.subscriptions):
                await subscription.put(Kept(position.epoch, position.offset, payload))
            await trio.lowlevel.checkpoint()
            self._archive.append(room, payload, history, trio.current_time())
            return position
        finally:
            self._rooms.end_turn(room, subscribed)


class DropsWhatDoesNotFit(Store):
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


class LeavesHoles(Store):
    """A publication that is cancelled is kept, and those who miss it never hear of it."""

    async def publish(
        self, room: str, payload: bytes, history: History | None, publication_id: str | None = None
    ) -> Position | None:
        subscribed = await self._rooms.take_turn(room)
        try:
            now = trio.current_time()
            if (position := self._ids.find(room, publication_id, now)) is not None:
                return position
            kept = self._archive.append(room, payload, history, now)
            assert kept is not None
            position = Position(kept.epoch, kept.offset)
            self._ids.add(room, publication_id, position, now)
            for subscription in list(subscribed.subscriptions):
                await subscription.put(kept)
            return position
        finally:
            self._rooms.end_turn(room, subscribed)


FAULTS: list[tuple[type[Store], str]] = [
    (ForgetsIds, "publication_id_that_was_used_does_nothing_again"),
    (ForgetsIds, "publication_id_that_is_used_by_several_at_once_goes_out_once"),
    (OneIdForAllRooms, "rooms_are_separate_whatever_their_names"),
    (KeepsAll, "only_so_many_are_kept"),
    (KeepsAll, "only_so_long_is_kept"),
    (ReadsLateByOne, "pages_meet_where_they_are_asked_for"),
    (FirstOfThoseBefore, "pages_meet_where_they_are_asked_for"),
    (PagesWithoutBound, "pages_of_large_publications_are_short_and_leave_none_out"),
    (DistrustsWhatWasSeen, "known_positions_begin_no_new_epoch"),
    (DistrustsWhatWasSeen, "what_is_lost_is_lost_once"),
    (DeliversBeforeItKeeps, "what_is_delivered_can_be_read"),
    (DropsWhatDoesNotFit, "what_a_full_channel_loses_is_told_and_can_be_read"),
    (LeavesHoles, "publishing_can_be_cancelled_at_any_moment_and_tried_again"),
]


class Suite(HistoryConformance):
    def __init__(self, store: Store) -> None:
        self.store = store

    @asynccontextmanager
    async def open_nodes(self, count: int) -> AsyncIterator[Sequence[Backplane]]:
        backplane = MemoryBackplane()
        backplane._history = self.store
        yield [backplane] * count


@pytest.mark.parametrize(("fault", "promise"), FAULTS)
async def test_broken_promise_is_caught(fault: type[Store], promise: str, autojump_clock: MockClock) -> None:
    caught: list[Exception] = []
    try:
        await getattr(Suite(fault()), f"test_{promise}")()
    except* (AssertionError, trio.TooSlowError, trio.WouldBlock) as group:
        caught += group.exceptions
    assert caught
