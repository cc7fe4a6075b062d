"""The embedded backplane: one process, no broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from trioroom.backplane.base import HistoryStore, Lost, PresenceStore
from trioroom.backplane.room_channel import RoomChannel


@attrs.define(eq=False)
class _Subscription:
    """One subscriber's channel."""

    channel: RoomChannel
    missed: int = 0  # publications that others got and this one did not, not told yet

    def put_nowait(self, payload: bytes) -> bool:
        """False when it is full."""
        if self.missed:
            if not self.channel.put_nowait(Lost("overflow", self.missed)):
                return False
            self.missed = 0
        return self.channel.put_nowait(payload)

    async def put(self, payload: bytes) -> None:
        if self.missed:
            await self.channel.put(Lost("overflow", self.missed))
            self.missed = 0
        await self.channel.put(payload)


@attrs.define(eq=False)
class _Room:
    """Its subscriptions, and whose turn it is to publish: one at a time, so that all see one order."""

    subscriptions: dict[_Subscription, None] = attrs.field(factory=dict)
    turn: trio.Lock = attrs.field(factory=trio.Lock)

    async def deliver(self, payload: bytes) -> None:
        """To those that have room at once, and then to the others as they get some; not always a checkpoint."""
        full = [subscription for subscription in self.subscriptions if not subscription.put_nowait(payload)]
        some_have_it = len(full) < len(self.subscriptions)
        for number, subscription in enumerate(full):
            try:
                await subscription.put(payload)
            except trio.Cancelled:
                if some_have_it or number:  # then the others must not miss it in silence
                    for missing in full[number:]:
                        missing.missed += 1
                raise


class MemoryBackplane:
    """Rooms of one process. Open from the start, with nothing to close; nothing survives the process."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}

    @property
    def history(self) -> HistoryStore | None:
        """None yet."""
        return None

    @property
    def presence(self) -> PresenceStore | None:
        """None yet."""
        return None

    @property
    def ready(self) -> bool:
        """Always: there is nothing to lose touch with."""
        return True

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        """Hand ``payload`` to each subscriber, awaiting those that are full; always a checkpoint."""
        await trio.lowlevel.checkpoint()
        subscribed = self._rooms.get(room)
        if subscribed is None:
            return
        try:
            subscribed.turn.acquire_nowait()  # awaiting a free lock would be a second checkpoint
        except trio.WouldBlock:
            await subscribed.turn.acquire()
        try:
            await subscribed.deliver(payload)
        finally:
            subscribed.turn.release()

    @asynccontextmanager
    async def subscribe(self, room: str, channel: RoomChannel) -> AsyncIterator[None]:
        """Put what is published to ``room`` into ``channel`` from now on."""
        subscription = _Subscription(channel)
        subscribed = self._rooms.setdefault(room, _Room())
        subscribed.subscriptions[subscription] = None
        try:
            yield
        finally:
            del subscribed.subscriptions[subscription]
            if not subscribed.subscriptions:
                del self._rooms[room]
