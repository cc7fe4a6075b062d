"""Rooms without a history: what is read is handed to those who have subscribed, from their place on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from trioroom.backplane.base import Lost
from trioroom.backplane.channel import Listener
from trioroom.backplane.kafka.log import Log
from trioroom.backplane.kafka.publication_ids import FirstUses
from trioroom.backplane.kafka.records import PUBLICATION_ID, ROOM, Record
from trioroom.errors import BackplaneUnavailable


@attrs.define(eq=False)
class _Subscription:
    """One listener of a room."""

    listener: Listener
    start: int
    """The first offset that it gets."""


class Rooms:
    """Who listens to which room; the handler of `ROOM`."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._subscriptions: dict[bytes, list[_Subscription]] = {}
        self._ids: dict[int, FirstUses] = {}

    @property
    def read_back(self) -> float:
        """For the ids that were used."""
        return self._log.settings.publication_id_ttl

    def take(self, records: Sequence[Record]) -> None:
        """To those who subscribed; what has an id that was used is nobody's."""
        for record in records:
            if record.headers and self._was_used(record):
                continue
            for subscription in self._subscriptions.get(record.name, ()):
                if record.offset >= subscription.start:
                    subscription.listener.offer(record.value)

    def _was_used(self, record: Record) -> bool:
        publication_id = record.header(PUBLICATION_ID)
        if publication_id is None:
            return False
        ids = self._ids.get(record.partition)
        if ids is None:
            settings = self._log.settings
            most = max(1, settings.max_publication_ids // self._log.partitions)
            ids = self._ids[record.partition] = FirstUses(settings.publication_id_ttl, most)
        return ids.first(record.name, publication_id, record.offset, record.timestamp) != record.offset

    def caught_up(self, partition: int) -> None:
        """Nobody waits for that here."""

    def lost(self, partition: int) -> None:
        """Tell all who subscribed; they get what the log has from its begin, for that is later than what they had."""
        self._ids.pop(partition, None)
        for name, subscriptions in self._subscriptions.items():
            if self._log.partition_of(ROOM, name.decode()) == partition:
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
        # Without a checkpoint since the answer: what is confirmed after this is behind it, and goes through `take`.
        name, subscription = room.encode(), _Subscription(listener, start)
        self._subscriptions.setdefault(name, []).append(subscription)
        try:
            yield
        finally:
            self._subscriptions[name].remove(subscription)
            if not self._subscriptions[name]:
                del self._subscriptions[name]

    async def _start(self, room: str) -> int:
        timeout = self._log.settings.timeout
        with trio.move_on_after(timeout):
            return await self._log.end(self._log.partition_of(ROOM, room))
        raise BackplaneUnavailable(
            f"the broker has not confirmed the subscription of room {room!r} within timeout={timeout:g} s; retry later"
        )
