"""The topic as a log that all nodes write and read: what rooms, histories and presence are built on.

`Log.produce` appends and says where; every node's handlers get every record of their kind, in the order of the log in
each partition. `Log.caught_up` waits until the handlers have been given all that was there when it was called, so that
what they make of it can be asked.

An outage loses nothing, as reading goes on from the same place; only where the log has lost that place the handlers are
told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from trioroom._core.meters import LinkMeters
from trioroom.backplane.kafka.link import Link
from trioroom.backplane.kafka.location import Location
from trioroom.backplane.kafka.reader import Handler
from trioroom.backplane.kafka.records import Headers, Place, partition_of
from trioroom.errors import BackplaneUnavailable


class Log:
    """Made by `trioroom.backplane.kafka.open_kafka`, which runs it; see there who is added to it."""

    def __init__(self, location: Location, on_change: Callable[[], None] = lambda: None) -> None:
        """``on_change`` is called when the link comes up or goes down."""
        self.settings = location.settings
        self._handlers: dict[bytes, Handler] = {}
        self._link = Link(location, self._handlers, on_change)

    @property
    def ready(self) -> bool:
        """Whether what we write comes round to us in each partition, as of the last probe."""
        return self._link.ready

    @property
    def failure(self) -> str | None:
        """Why it does not; None while it does, or was never tried."""
        return self._link.failure

    @property
    def meters(self) -> LinkMeters:
        """Outages, delays and group sizes so far."""
        return self._link.meters

    @property
    def partitions(self) -> int:
        """Of the topic; known once the link has been up. After a change `Handler.lost` is called for each of them."""
        return self._link.partitions

    async def run(self) -> None:
        """Keep the link up; only cancelling ends it."""
        await self._link.run()

    def add_handler(self, kind: bytes, handler: Handler) -> None:
        """Give ``handler`` all records of this kind; before `run`."""
        self._handlers[kind] = handler

    def partition_of(self, kind: bytes, name: str) -> int:
        """Where `produce` puts what has this kind and name."""
        return partition_of(kind + name.encode(), self.partitions)

    @property
    def incarnation(self) -> str:
        """Of the topic, another one after it was made anew; known once the link has been up. Empty if none is told."""
        return self._link.incarnation

    def place(self, partition: int) -> int:
        """The offset to be read next: the handlers have been given all before it. Negative where that is not known."""
        return self._link.reader.places.get(partition, -1)

    def start(self, partition: int) -> int:
        """Where reading began, or began anew when the log was lost; negative where that is not known."""
        return self._link.reader.starts.get(partition, -1)

    async def produce(
        self, kind: bytes, name: str, value: bytes | None, headers: Headers = (), partition: int | None = None
    ) -> Place:
        """Append a record, a tombstone for None; returns its `Place` when the broker has confirmed it. A checkpoint.

        Cancelled, it may or may not be written. Calls may overlap; those of one task keep their order.

        Args:
            partition: None is that of ``kind`` and ``name``.
        Raises:
            BackplaneUnavailable: no answer within ``timeout``: it may have gone out or not. At once when nothing has
                come through for so long already.
            BackplaneError: the broker refuses it, as it will again.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._link.producer.check_up()
        key = kind + name.encode()
        if partition is None:
            partition = partition_of(key, self.partitions)
        return await self._link.producer.produce(partition, key, value, headers)

    async def produce_all(self, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> Place:
        """Append records to one partition, keys with their values, in this order; a value of None is a tombstone's.

        Returns the place of the last one; there has to be one. Raises as `produce` does: then any may have gone out.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._link.producer.check_up()
        return await self._link.producer.produce_all(partition, records)

    async def wait_passed(self, place: Place) -> None:
        """Until the record there has been given to its handler; always a checkpoint.

        Under a deadline of the caller's: in a log that is made anew the place may not come for long.
        """
        await self._link.reader.wait_passed(place.partition, place.offset)

    async def end(self, partition: int) -> int:
        """An offset behind all that has been confirmed so far. Calls may overlap, and then share a round trip.

        Raises:
            BackplaneUnavailable, BackplaneError: as `produce`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._link.producer.check_up()
        return await self._link.marks.offset(partition) + 1

    async def caught_up(self, partition: int) -> None:
        """Until the handlers have been given all that has been confirmed so far, by any node.

        Raises:
            BackplaneUnavailable: not within ``timeout``.
            BackplaneError: as `produce`.
        """
        with trio.move_on_after(self.settings.timeout):
            end = await self.end(partition)
            return await self._link.reader.wait_passed(partition, end - 1)
        raise BackplaneUnavailable(
            f"the log has not been read to its end within timeout={self.settings.timeout:g} s"
            f"{self._because}; retry later"
        )

    @property
    def _because(self) -> str:
        return f" ({self.failure})" if self.failure else ""
