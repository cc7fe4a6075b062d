"""The history of an active room: its window, and what is fetched from the backplane when that does not reach back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs
import trio

from trioroom._core.entries import Entry
from trioroom._core.history import Position, same_place
from trioroom._core.window import Window
from trioroom._net.healing import HealingChannel, Turn
from trioroom._net.replay import Replay, publications_of
from trioroom.errors import BackplaneUnavailable, PositionLost
from trioroom.room import HistoryPage, KeptMessage

if TYPE_CHECKING:
    from trioroom._core.batch import Batch
    from trioroom._core.history import Kept
    from trioroom._net.limits import Limits
    from trioroom.backplane.base import HistoryStore
    from trioroom.backplane.room_channel import RoomChannel
    from trioroom.member import Member
    from trioroom.room import Room

_READ_AT_ONCE = 256  # publications
_PAGE_BYTES = 256 << 10  # of payload in one page, which its first message may pass
_TRIES = 8  # to read what comes before a window that moves meanwhile, without getting any further


@attrs.frozen
class Place:
    """Where a member begins in the history."""

    position: Position | None
    """None in rooms that have none."""
    recovered: bool | None
    """Whether it gets all it missed; None where it asked for nothing."""


@attrs.define(eq=False)
class RoomHistory:
    """Owned by an `ActiveRoom`. `publish` is what a `PacedPublisher` calls."""

    store: HistoryStore
    room: Room
    limits: Limits
    channel: RoomChannel
    window: Window = attrs.field(init=False)
    _source: HealingChannel = attrs.field(init=False)
    _replay: Replay = attrs.field(init=False)
    _reading: trio.Lock = attrs.field(factory=trio.Lock)  # one read serves all who want to reach back
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)  # for the window to move

    def __attrs_post_init__(self) -> None:
        assert self.room.history is not None
        self.window = Window(self.room.history, self.limits.budget)
        self._source = HealingChannel(self.store, self.room.name, self.window.history, self.channel)
        self._replay = Replay(self.room, self.window, self.limits.budget)

    async def begin(self) -> HealingChannel:
        """What the fan-out reads; the channel is subscribed.

        Raises:
            BackplaneUnavailable: the broker cannot be reached.
        """
        turn = await self._source.begin()
        self.window.go_on_from(turn.position, turn.previous)
        self.limits.budget.open_cache(self, self._forget)
        return self._source

    def close(self) -> None:
        """Give back the memory."""
        self.limits.budget.close(self)
        self._forget()

    @property
    def queued_bytes(self) -> int:
        """What it has in memory, all of which the broker has too."""
        return self.window.queued_bytes + self._replay.queued_bytes

    def _forget(self) -> None:
        self.window.forget()
        self._replay.forget()

    # -- for the fan-out -----------------------------------------------------------------------

    def append(self, kept: list[Kept]) -> None:
        """They are passed on now."""
        self.window.append(kept, trio.current_time())
        self._moved()

    def turn(self, turn: Turn) -> None:
        """What is passed on next follows another place."""
        self.window.go_on_from(turn.position, turn.previous)
        self._moved()

    def _moved(self) -> None:
        self._replay.forget()
        self._waiting.unpark_all()

    def place(self, position: Position | None, member: Member) -> tuple[Place, Batch | None]:
        """Where a joiner begins, and what it has to get first; `reach` has been called for its position."""
        window = self.window
        window.expire(trio.current_time())
        if position is None:
            return Place(window.position, None), None
        here = same_place(position, window.position, window.previous)
        if here is None or here.offset < window.start:
            return Place(window.position, False), None
        missed = self._replay.after(here.offset, member._feed, member._connection.encoding, member.id)
        if missed is not None and not self._fits(missed):
            return Place(window.position, False), None
        return Place(here, True), missed

    def _fits(self, missed: Batch) -> bool:
        """Whether it takes no more than half of what a member's outbox may hold, as live messages follow.

        Part of a recovery is none, and one that ends in 4108 would be tried again for ever.
        """
        settings, room = self.limits.settings, self.room
        max_messages = room.max_outbox_messages or settings.max_outbox_messages
        max_bytes = room.max_outbox_bytes or settings.max_outbox_bytes
        return 2 * len(missed.ends) <= max_messages and 2 * len(missed.data) <= max_bytes

    # -- for those who ask -----------------------------------------------------------------------

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> Position | None:
        """As `trioroom.backplane.base.HistoryStore.publish`."""
        position = await self.store.publish(room, payload, self.window.history, publication_id)
        if position is not None:
            self._source.confirm(position)
        return position

    async def reach_position(self, position: Position) -> None:
        """Have the window reach ``position``, if that can be; `place` then says whether it could.

        Raises:
            BackplaneUnavailable: the broker cannot be reached, or this server is behind for ``publish_timeout``.
        """
        if self._find(position) is None:
            page = await self.store.read_after(self.room.name, self.window.history, None, 0)
            if same_place(position, page.position, page.previous) is not None:
                await self._catch_up(position)  # another server has passed it on already
        await self._reach(position)

    def _find(self, position: Position) -> Position | None:
        """``position`` in the window's epoch; None where that does not know it, or not yet."""
        return same_place(position, self.window.position, self.window.previous)

    async def _catch_up(self, position: Position) -> None:
        self._source.look_again()
        timeout = self.limits.settings.publish_timeout
        with trio.move_on_after(timeout) as scope:
            while self._find(position) is None:
                await self._waiting.park()
        if scope.cancelled_caught:
            raise BackplaneUnavailable(
                f"room {self.room.name!r} has been behind for publish_timeout={timeout:g} s; retry later"
            )

    async def _reach(self, position: Position) -> bool:
        """Have the window reach back to ``position``; False if what follows that is not held any more, or its epoch.

        Raises:
            BackplaneUnavailable: the broker cannot be reached.
        """

        def count_missing() -> int:
            here = self._find(position)
            return 0 if here is None else self.window.start - here.offset

        await self._extend_back(count_missing)
        here = self._find(position)
        return here is not None and here.offset >= self.window.start

    async def _extend_back(self, count_missing: Callable[[], int]) -> None:
        """Have the window reach further back while that is so many publications at most, and there are any.

        Raises:
            BackplaneUnavailable: the broker cannot be reached.
        """
        if self._count_to_read(count_missing) == 0:
            return
        async with self._reading:
            failures = 0
            while failures < _TRIES and (count := self._count_to_read(count_missing)) > 0:
                window, before = self.window, self.window.start
                page = await self.store.read_before(self.room.name, window.history, before + 1, count)
                failures += not window.extend_back(page, before, trio.current_time())
                self._replay.forget()

    def _count_to_read(self, count_missing: Callable[[], int]) -> int:
        self.window.expire(trio.current_time())
        return 0 if self.window.complete else min(_READ_AT_ONCE, max(0, count_missing()))

    async def page(self, limit: int, before: Position | None, after: Position | None) -> HistoryPage:
        """See `Room.read_history`."""
        if after is not None:
            return await self._page_after(limit, after)
        window, epoch = self.window, None
        while epoch != window.position.epoch:  # in another one offsets may mean other messages
            epoch = window.position.epoch
            await self._hold(limit + 1, before)  # one more, which tells whether there are more
        entries = window.before(self._end(before), limit + 1)
        chosen = _within_bytes(reversed(entries[-limit:]))[::-1]
        return self._to_page(chosen, more=len(chosen) < len(entries))

    async def _hold(self, count: int, before: Position | None) -> None:
        """Have the window hold so many of those that a page ends with, if that can be."""

        def count_missing() -> int:
            if before is not None and self._find(before) is None:
                return 0
            end = self._end(before)
            beyond = max(0, self.window.start + 1 - end)  # between the page's end and the window, at most
            return count + beyond - len(self.window.before(end, count))

        await self._extend_back(count_missing)

    def _end(self, before: Position | None) -> int:
        """The offset that is above all on the page that ends ``before``."""
        return self.window.position.offset + 1 if before is None else self._here(before).offset

    async def _page_after(self, limit: int, after: Position) -> HistoryPage:
        if not await self._reach(self._here(after)) or (place := self._here(after)).offset < self.window.start:
            raise PositionLost(f"the history does not hold what follows offset {after.offset} any more; begin anew")
        entries = list(self.window.after(place.offset))
        chosen = _within_bytes(entries[:limit])
        return self._to_page(chosen, more=len(chosen) < len(entries))

    def _here(self, position: Position) -> Position:
        place = self._find(position)
        if place is None:
            raise PositionLost(f"the history knows no position {position.epoch}:{position.offset}; begin anew")
        return place

    def _to_page(self, entries: list[Entry], *, more: bool) -> HistoryPage:
        messages = tuple(
            KeptMessage(offset, publication.data, publication.sender)  # type: ignore[arg-type]  # as it was published
            for offset, publication in publications_of(entries)
        )
        return HistoryPage(messages, self.window.position, more)


def _within_bytes(entries: Iterable[Entry]) -> list[Entry]:
    chosen: list[Entry] = []
    size = 0
    for entry in entries:
        size += len(entry.payload)
        if chosen and size > _PAGE_BYTES:
            break
        chosen.append(entry)
    return chosen
