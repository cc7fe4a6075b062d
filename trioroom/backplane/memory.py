"""The embedded backplane: one process, no broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from trioroom.backplane.base import Delivery


class MemoryBackplane:
    """Rooms of one process. Needs no opening; nothing survives the process."""

    def __init__(self) -> None:
        self._subscribers: dict[str, dict[trio.MemorySendChannel[Delivery], trio.Lock]] = {}

    @property
    def ready(self) -> bool:
        """Always: there is nothing to lose touch with."""
        return True

    async def publish(self, room: str, payload: bytes) -> None:
        """Hand ``payload`` to each subscriber, awaiting those that are full; always a checkpoint."""
        await trio.lowlevel.checkpoint()
        for channel, turn in list(self._subscribers.get(room, {}).items()):
            try:
                if turn.locked():
                    raise trio.WouldBlock  # others wait before us: all subscribers see one order
                channel.send_nowait(payload)
            except trio.WouldBlock:
                await self._send_in_turn(channel, turn, payload)
            except trio.BrokenResourceError:
                pass  # it unsubscribed between the snapshot and now

    async def _send_in_turn(self, channel: trio.MemorySendChannel[Delivery], turn: trio.Lock, payload: bytes) -> None:
        async with turn:
            try:
                await channel.send(payload)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    @asynccontextmanager
    async def subscribe(self, room: str, capacity: int) -> AsyncIterator[trio.MemoryReceiveChannel[Delivery]]:
        """A channel of what is published to ``room`` from now on."""
        send, receive = trio.open_memory_channel[Delivery](capacity)
        subscribers = self._subscribers.setdefault(room, {})
        subscribers[send] = trio.Lock()
        try:
            async with receive:
                yield receive
        finally:
            send.close()
            del subscribers[send]
            if not subscribers and self._subscribers.get(room) is subscribers:
                del self._subscribers[room]
