"""Rooms without a history: what is read is handed to those who have subscribed, from their place on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from trioroom.backplane.channel import Listener
from trioroom.backplane.kafka.listeners import Listeners
from trioroom.backplane.kafka.log import Log
from trioroom.backplane.kafka.publication_ids import FirstUses
from trioroom.backplane.kafka.records import PUBLICATION_ID, ROOM, Record


class Rooms:
    """The handler of `ROOM`."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._listeners = Listeners(log, ROOM)
        self._ids: dict[int, FirstUses] = {}
        self._lost: set[int] = set()  # partitions that are read anew

    @property
    def read_back(self) -> float:
        """For the ids that were used."""
        return self._log.settings.publication_id_ttl

    def take(self, records: Sequence[Record]) -> None:
        """To those who subscribed; what has an id that was used is nobody's.

        Nor is what a partition has that is read anew: a log that was cut off before our place, when a leader was voted
        in that lacked its end, still has all that it had before that.
        """
        for record in records:
            if not (record.headers and self._was_used(record)) and record.partition not in self._lost:
                self._listeners.deliver(record, record.value)

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
        """After a loss: what has come in meanwhile was nobody's."""
        if partition in self._lost:
            self._lost.discard(partition)
            self._listeners.lose(partition)

    def lost(self, partition: int) -> None:
        """Tell all who subscribed; no id was used in what follows."""
        self._lost.add(partition)
        self._ids.pop(partition, None)
        self._listeners.lose(partition)

    def subscribe(self, room: str, listener: Listener) -> AbstractAsyncContextManager[None]:
        """Give ``listener`` what is published from when this is entered.

        Raises:
            BackplaneUnavailable: the broker does not answer within ``timeout``.
            BackplaneError: it refuses us.
        """
        return self._listeners.subscribe(room, listener)
