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


@attrs.define(eq=False)
class _Room:
    """While anybody listens to it."""

    partition: int
    subscriptions: list[_Subscription] = attrs.field(factory=list)

    def lose(self) -> None:
        for subscription in self.subscriptions:
            subscription.listener.offer(Lost("backplane"))


class Listeners:
    """Of all rooms whose records are of one kind."""

    def __init__(self, log: Log, kind: bytes) -> None:
        self._log = log
        self._kind = kind
        self._rooms: dict[bytes, _Room] = {}
        self._partitions = 0  # that the rooms' are of
        self._warned = False

    def __contains__(self, name: bytes) -> bool:
        """Whether anybody listens to the room."""
        return name in self._rooms

    def deliver(self, record: Record, delivery: Delivery | None) -> None:
        """What ``record`` is to its room, if anything, to all who listen from its place or before.

        Where it stands in another partition than the room's it has no place among what is said there, and is told as a
        loss. Its writer has another partitioner, or does not agree with us yet how many partitions there are.
        """
        if (room := self._rooms.get(record.name)) is None:
            return
        if record.partition != room.partition:
            self._warn(record, room.partition)
            room.lose()
        elif delivery is not None:
            for subscription in room.subscriptions:
                if record.offset >= subscription.start:
                    subscription.listener.offer(delivery)

    def _warn(self, record: Record, right: int) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "kafka: dropped a record of room %s in partition %d, as partition %d has its records; its writer has "
                "another partitioner, or has not noticed that partitions were added", record.name.decode(),
                record.partition, right, extra={"partition": record.partition, "offset": record.offset},
            )  # fmt: skip

    def lose(self, partition: int) -> None:
        """Tell those of a partition; what is delivered from now on is for them, at whichever offset."""
        if self._partitions != self._log.partitions:
            self._partitions = self._log.partitions
            for name, room in self._rooms.items():
                room.partition = partition_of(self._kind + name, self._partitions)
        for room in self._rooms.values():
            if room.partition == partition:
                for subscription in room.subscriptions:
                    subscription.start = 0
                room.lose()

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
        if (heard := self._rooms.get(name)) is None:
            heard = self._rooms[name] = _Room(self._log.partition_of(self._kind, room))
        heard.subscriptions.append(subscription)
        try:
            yield
        finally:
            heard.subscriptions.remove(subscription)
            if not heard.subscriptions:
                del self._rooms[name]

    async def _start(self, room: str) -> int:
        timeout, partition = self._log.settings.timeout, -1
        with trio.move_on_after(timeout):
            while partition != (partition := self._log.partition_of(self._kind, room)):  # which may change meanwhile
                start = await self._log.end(partition)
            return start
        raise BackplaneUnavailable(
            f"the broker has not confirmed the subscription of room {room!r} within timeout={timeout:g} s; retry later"
        )
