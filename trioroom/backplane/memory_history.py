"""Histories of rooms in the memory of one process."""

from __future__ import annotations

import secrets
from contextlib import AbstractAsyncContextManager

import trio

from trioroom._core.archive import Archive
from trioroom._core.history import History, Page, Position
from trioroom._core.publication_ids import PublicationIds
from trioroom.backplane.memory_rooms import MemoryRooms
from trioroom.backplane.room_channel import RoomChannel


def _begin(room: str) -> Position:
    return Position(secrets.token_urlsafe(9), 0)


class MemoryHistory:
    """A `HistoryStore`; it outlives the subscriptions of its rooms, but not the process.

    An epoch ends here only when other rooms need the memory: what follows goes on from nothing.
    """

    def __init__(self, max_bytes: float, ids: PublicationIds[Position]) -> None:
        self._archive = Archive(max_bytes, _begin)
        self._ids = ids
        self._rooms = MemoryRooms()

    @property
    def dense_offsets(self) -> bool:
        """Each room counts its own."""
        return True

    async def publish(
        self, room: str, payload: bytes, history: History | None, publication_id: str | None = None
    ) -> Position | None:
        """Keep ``payload`` and hand it to each subscriber, awaiting those that are full; always a checkpoint.

        Cancelled before its turn it leaves nothing behind; afterwards it is kept, and who misses it is told.
        """
        subscribed = await self._rooms.take_turn(room)
        try:
            now = trio.current_time()
            position = self._ids.find(room, publication_id, now)
            if position is not None:
                return position
            kept = self._archive.append(room, payload, history, now)
            if kept is None:
                return None
            position = Position(kept.epoch, kept.offset)
            self._ids.add(room, publication_id, position, now)
            await subscribed.deliver(kept)
            return position
        finally:
            self._rooms.end_turn(room, subscribed)

    def forget_all(self) -> None:
        """All that is kept; every room begins a new epoch."""
        self._archive.forget_all(lambda room: True)
        self._ids.clear()

    def subscribe(self, room: str, channel: RoomChannel) -> AbstractAsyncContextManager[None]:
        """Put what is published to ``room`` into ``channel`` from now on."""
        return self._rooms.subscribe(room, channel)

    async def read_after(
        self, room: str, history: History, offset: int | None, limit: int, *, seen: Position | None = None
    ) -> Page:
        """What follows ``offset``; always a checkpoint."""
        await trio.lowlevel.checkpoint()
        return self._archive.read_after(room, history, offset, limit, trio.current_time(), seen)

    async def read_before(self, room: str, history: History, offset: int, limit: int) -> Page:
        """What comes before ``offset``; always a checkpoint."""
        await trio.lowlevel.checkpoint()
        return self._archive.read_before(room, history, offset, limit, trio.current_time())
