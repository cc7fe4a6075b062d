"""Who listens to which room, from which place in the log on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from trioroom.backplane.base import Delivery, Lost
from trioroom.backplane.channel import Listener
from trioroom.backplane.kafka.log import Log
from trioroom.errors import BackplaneUnavailable


@attrs.define(eq=False)
class _Subscription:
    """One listener of a room."""

    listener: Listener
    partition: int
    start: int
    """The first offset that it gets."""


class Listeners:
    """Of all rooms whose records are of one kind."""

    def __init__(self, log: Log, kind: bytes) -> None:
        self._log = log
        self._kind = kind
        self._subscriptions: dict[bytes, list[_Subscription]] = {}

    def __contains__(self, name: bytes) -> bool:
        """Whether anybody listens to the room."""
        return name in self._subscriptions

    def deliver(self, name: bytes, offset: int, delivery: Delivery) -> None:
        """What stands at ``offset``, to all who listen from there or before."""
        for subscription in self._subscriptions.get(name, ()):
            if offset >= subscription.start:
                subscription.listener.offer(delivery)

    def lose(self, partition: int) -> None:
        """Tell those of a partition; what is delivered from now on is for them, at whichever offset."""
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                if subscription.partition == partition:
                    subscription.start = 0
                    subscription.listener.offer(Lost("backplane"))

    @asynccontextmanager
    async def subscribe(self, room: str, listener: Listener) -> AsyncIterator[None]:
        """Give ``listener`` what is published from when this is entered.

        Raises:
            BackplaneUnavailable: the broker does not answer within ``timeout``.
            BackplaneError: it refuses us.
        """
        partition = self._log.partition_of(self._kind, room)
        start = await self._start(room, partition)
        # Without a checkpoint since the answer: what is confirmed after this is behind it, and has not been read yet.
        name, subscription = room.encode(), _Subscription(listener, partition, start)
        self._subscriptions.setdefault(name, []).append(subscription)
        try:
            yield
        finally:
            self._subscriptions[name].remove(subscription)
            if not self._subscriptions[name]:
                del self._subscriptions[name]

    async def _start(self, room: str, partition: int) -> int:
        timeout = self._log.settings.timeout
        with trio.move_on_after(timeout):
            return await self._log.end(partition)
        raise BackplaneUnavailable(
            f"the broker has not confirmed the subscription of room {room!r} within timeout={timeout:g} s; retry later"
        )
