"""The reading half: all partitions of the topic, in the order of the log, for the handlers of its records.

No consumer group: each node reads everything, from places that it knows itself, and an outage only makes it wait
there. So nothing is lost by one, unless the log does not have the place any more: `feed` finds that out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import trio
from confluent_kafka import OFFSET_BEGINNING

from trioroom.backplane.kafka.client import OnError, run_thread
from trioroom.backplane.kafka.feed import Batch, Feed, Last
from trioroom.backplane.kafka.location import Location
from trioroom.backplane.kafka.records import Record


class Handler(Protocol):
    """Who gets the records of one kind. Called by the reader's task, so it takes what comes at once."""

    @property
    def read_back(self) -> float:
        """Seconds of the log to be read when the node starts; what others want may make it more."""
        ...

    def take(self, records: Sequence[Record]) -> None:
        """All of this kind that came together; those of one partition are in the order of the log, without a hole.

        Offsets have holes: between them are records of other kinds.
        """
        ...

    def caught_up(self, partition: int) -> None:
        """What was in the log when we started to read it has been given; again after `lost`."""
        ...

    def lost(self, partition: int) -> None:
        """The log went on without us, or was made anew: what follows begins where that begins, maybe at offset 0."""
        ...


class Reader:
    """Outlives the client; `run` has one at a time."""

    def __init__(self, location: Location, handlers: Mapping[bytes, Handler]) -> None:
        self.places: dict[int, int] = {}
        """The offset to be read next, by partition: all before it has been given to the handlers."""
        self.starts: dict[int, int] = {}
        """Where reading began, as `places`."""
        self._location = location
        self._handlers = handlers
        self._lasts: dict[int, Last] = {}  # none where we have not read so far, or lost our place
        self._goals: dict[int, int] = {}  # the ends when we started, of those partitions that have not been read so far
        self._news: dict[int, trio.Event] = {}  # while somebody waits
        self._progress = trio.Event()

    async def wait_passed(self, partition: int, offset: int) -> None:
        """Until the record at ``offset`` has been given to its handler; always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self.places.get(partition, -1) <= offset:
            await self._news.setdefault(partition, trio.Event()).wait()

    async def wait_progress(self) -> None:
        """Until anything has been read."""
        await self._progress.wait()

    @property
    def behind(self) -> int:
        """How many offsets are between us and the end that the log had when we started."""
        return sum(max(0, goal - max(0, self.places[partition])) for partition, goal in self._goals.items())

    def lose(self, partitions: Iterable[int]) -> None:
        """Tell the handlers that the log does not go on where we were, and begin at its begin."""
        for partition in partitions:
            self.places[partition] = self.starts[partition] = OFFSET_BEGINNING
            self._lasts.pop(partition, None)
            for handler in self._handlers.values():
                handler.lost(partition)

    def lose_all(self, partitions: int) -> None:
        """Likewise all of the log, which has so many partitions now."""
        for known in (self.places, self.starts, self._lasts):
            known.clear()
        self.lose(range(partitions))

    async def run(
        self,
        starts: Mapping[int, int],
        ends: Mapping[int, int],
        on_error: OnError,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Read from these places on, until cancelled; started when it is known how far we are `behind`.

        Args:
            starts: by partition; see `places`.
            ends: of the log now; the handlers are told when we have come there.
        Raises:
            LogLost: the log does not have a place any more.
            LinkLost: the client is of no more use.
        """
        self.places = dict(starts)
        self.starts = {**starts, **self.starts}
        self._goals = dict(ends)
        self._tell_caught_up()
        task_status.started()
        feed = Feed(self._location, starts, self._lasts, on_error)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_thread, feed.run, feed.stop)
            async for batch in feed.batches:
                feed.taken()
                self._take(batch)

    def _take(self, batch: Batch) -> None:
        for kind, records in batch.records.items():
            if (handler := self._handlers.get(kind)) is not None:
                handler.take(records)
        self.places.update(batch.ends)
        self._lasts.update(batch.lasts)
        self._progress.set()
        self._progress = trio.Event()
        if self._goals:
            self._tell_caught_up()
        for partition in batch.ends:
            if (news := self._news.pop(partition, None)) is not None:
                news.set()

    def _tell_caught_up(self) -> None:
        for partition in [each for each, goal in self._goals.items() if self.places[each] >= goal]:
            del self._goals[partition]
            for handler in self._handlers.values():
                handler.caught_up(partition)
