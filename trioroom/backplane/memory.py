"""The embedded backplane: one process, no broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from trioroom.backplane.base import Delivery, Lost

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)  # it unsubscribed while we had it in hand


@attrs.define(eq=False)
class _Subscription:
    """One subscriber's channel."""

    channel: trio.MemorySendChannel[Delivery]
    missed: int = 0  # publications that others got and this one did not, not told yet

    def send_nowait(self, payload: bytes) -> bool:
        """False when it is full."""
        try:
            if self.missed:
                self.channel.send_nowait(Lost("overflow", self.missed))
                self.missed = 0
            self.channel.send_nowait(payload)
        except trio.WouldBlock:
            return False
        except _GONE:
            pass
        return True

    async def send(self, payload: bytes) -> None:
        try:
            if self.missed:
                await self.channel.send(Lost("overflow", self.missed))
                self.missed = 0
            await self.channel.send(payload)
        except _GONE:
            pass


@attrs.define(eq=False)
class _Room:
    """Its subscriptions, and whose turn it is to publish: one at a time, so that all see one order."""

    subscriptions: dict[_Subscription, None] = attrs.field(factory=dict)
    turn: trio.Lock = attrs.field(factory=trio.Lock)

    async def deliver(self, payload: bytes) -> None:
        """To those that have room at once, and then to the others as they get some; not always a checkpoint."""
        full = [subscription for subscription in self.subscriptions if not subscription.send_nowait(payload)]
        some_have_it = len(full) < len(self.subscriptions)
        for number, subscription in enumerate(full):
            try:
                await subscription.send(payload)
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
    def ready(self) -> bool:
        """Always: there is nothing to lose touch with."""
        return True

    async def publish(self, room: str, payload: bytes) -> None:
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
    async def subscribe(self, room: str, capacity: int) -> AsyncIterator[trio.MemoryReceiveChannel[Delivery]]:
        """A channel of what is published to ``room`` from now on."""
        send, receive = trio.open_memory_channel[Delivery](capacity)
        subscription = _Subscription(send)
        subscribed = self._rooms.setdefault(room, _Room())
        subscribed.subscriptions[subscription] = None
        try:
            with receive:
                yield receive
        finally:
            send.close()
            del subscribed.subscriptions[subscription]
            if not subscribed.subscriptions:
                del self._rooms[room]
