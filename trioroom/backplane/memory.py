"""The embedded backplane: one process, no broker."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import trio

from trioroom._core.publication_ids import PublicationIds
from trioroom.backplane.base import HistoryStore
from trioroom.backplane.memory_history import MemoryHistory
from trioroom.backplane.memory_presence import MemoryPresence
from trioroom.backplane.memory_rooms import MemoryRooms
from trioroom.backplane.room_channel import RoomChannel


class MemoryBackplane:
    """Rooms of one process. Open from the start, with nothing to close; nothing survives the process.

    Args:
        max_history_bytes: of all that rooms keep, with 200 for each publication and 1,000 for each room. When they are
            more, the rooms that have been quiet longest lose their histories; ``math.inf`` is no bound.
        publication_id_ttl: seconds for which a ``publication_id`` is known; zero knows none.
        max_publication_ids: how many are known, in rooms with histories and again in those without; the oldest are
            forgotten first. One takes some 400 bytes.
    """

    def __init__(
        self,
        *,
        max_history_bytes: float = 64 * 1024 * 1024,
        publication_id_ttl: float = 300.0,
        max_publication_ids: int = 100_000,
    ) -> None:
        self._rooms = MemoryRooms()
        self._ids = PublicationIds[bool](publication_id_ttl, max_publication_ids)
        self._presence = MemoryPresence()
        self._history = MemoryHistory(max_history_bytes, PublicationIds(publication_id_ttl, max_publication_ids))

    @property
    def history(self) -> HistoryStore | None:
        """Always there; rooms with and without a history are different ones, whatever their names."""
        return self._history

    @property
    def presence(self) -> MemoryPresence:
        """Tables of who is in the rooms, that seats of this process share."""
        return self._presence

    @property
    def ready(self) -> bool:
        """Always: there is nothing to lose touch with."""
        return True

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        """Hand ``payload`` to each subscriber, awaiting those that are full; always a checkpoint."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._publish_nowait(room, payload, publication_id):
            # Afterwards: the fan-out is on its way already when the publisher gives way to others.
            return await trio.lowlevel.cancel_shielded_checkpoint()
        subscribed = await self._rooms.take_turn(room)
        try:
            now = trio.current_time()
            if not self._ids.find(room, publication_id, now):
                await subscribed.deliver(payload, lambda: self._ids.add(room, publication_id, True, now))
        finally:
            self._rooms.end_turn(room, subscribed)

    def _publish_nowait(self, room: str, payload: bytes, publication_id: str | None) -> bool:
        if publication_id is None:
            return self._rooms.put_nowait(room, payload)
        now = trio.current_time()
        if self._ids.find(room, publication_id, now):
            return True
        if not self._rooms.put_nowait(room, payload):
            return False
        self._ids.add(room, publication_id, True, now)
        return True

    def forget_all(self) -> None:
        """As a broker that restarts without a disk: histories and used ``publication_id`` are gone, for tests of that.

        Subscriptions live on, and who is present stays so.
        """
        self._history.forget_all()
        self._ids.clear()

    def subscribe(self, room: str, channel: RoomChannel) -> AbstractAsyncContextManager[None]:
        """Put what is published to ``room`` into ``channel`` from now on."""
        return self._rooms.subscribe(room, channel)
