"""Who listens to which room, from which place in the log on."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from trioroom.backplane.base import Delivery, Lost
from trioroom.backplane.channel import Listener
from trioroom.backplane.kafka.log import Log
from trioroom.backplane.kafka.records import Record, partition_of
from trioroom.errors import BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")


@attrs.define(eq=False)
class _Subscription:
    """One listener of a room."""

    listener: Listener
    start: int
    """The first offset that it gets."""


class Listeners:
    """Of all rooms whose records are of one kind."""

    def __init__(self, log: Log, kind: bytes) -> None:
        self._log = log
        self._kind = kind
        self._subscriptions: dict[bytes, list[_Subscription]] = {}
        self._warned = False

    def __contains__(self, name: bytes) -> bool:
        """Whether anybody listens to the room."""
        return name in self._subscriptions

    def deliver(self, name: bytes, offset: int, delivery: Delivery) -> None:
        """What stands at ``offset``, to all who listen from there or before."""
        for subscription in self._subscriptions.get(name, ()):
            if offset >= subscription.start:
                subscription.listener.offer(delivery)

    def lose_misplaced(self, record: Record) -> bool:
        """Whether it stands in another partition than what is said in its room, and has no place in the order of that.

        Its writer has another partitioner, or does not agree with us yet how many partitions there are. Who listens to
        the room is told that something is lost.
        """
        right = partition_of(record.kind + record.name, self._log.partitions)
        if right == record.partition:
            return False
        if not self._warned:
            self._warned = True
            log.warning(
                "kafka: dropped a record of room %s in partition %d, as partition %d has its records; its writer has "
                "another partitioner, or has not noticed that partitions were added", record.name.decode(),
                record.partition, right, extra={"partition": record.partition, "offset": record.offset},
            )  # fmt: skip
        for subscription in self._subscriptions.get(record.name, ()):
            subscription.listener.offer(Lost("backplane"))
        return True

    def lose(self, partition: int) -> None:
        """Tell those of a partition; what is delivered from now on is for them, at whichever offset."""
        for name, subscriptions in self._subscriptions.items():
            if partition_of(self._kind + name, self._log.partitions) == partition:
                for subscription in subscriptions:
                    subscription.start = 0
                    subscription.listener.offer(Lost("backplane"))

    @asynccontextmanager
    async def subscribe(self, room: str, listener: Listener) -> AsyncIterator[None]:
        """Give ``listener`` what is published from when this is entered.

        Raises:
            BackplaneUnavailable: the broker does not answer within ``timeout``.
            BackplaneError: it refuses us.
        """
        start = await self._start(room)
        # Without a checkpoint since the answer: what is confirmed after this is behind it, and has not been read yet.
        name, subscription = room.encode(), _Subscription(listener, start)
        self._subscriptions.setdefault(name, []).append(subscription)
        try:
            yield
        finally:
            self._subscriptions[name].remove(subscription)
            if not self._subscriptions[name]:
                del self._subscriptions[name]

    async def _start(self, room: str) -> int:
        timeout, partition = self._log.settings.timeout, -1
        with trio.move_on_after(timeout):
            while partition != (partition := self._log.partition_of(self._kind, room)):  # which may change meanwhile
                start = await self._log.end(partition)
            return start
        raise BackplaneUnavailable(
            f"the broker has not confirmed the subscription of room {room!r} within timeout={timeout:g} s; retry later"
        )
