"""The reading half: all partitions of the topic, in the order of the log, by a thread that gives Trio batches.

No consumer group: each node reads everything, from places that it knows itself, and an outage only makes it wait
there. So nothing is lost by one, unless the log does not have the place any more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import attrs
import confluent_kafka
import trio
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from trioroom.backplane.kafka.client import (
    POLL_SECONDS,
    Config,
    OnError,
    common_config,
    milliseconds,
    run_thread,
)
from trioroom.backplane.kafka.location import Location
from trioroom.backplane.kafka.records import Record
from trioroom.backplane.supervision import LinkLost

_BATCH = 512  # records, so that Trio's other tasks wait for no more than a millisecond or two
_AHEAD = 2  # batches that Trio has been given and not looked at
_NO_SUCH_PLACE = {
    confluent_kafka.KafkaError.OFFSET_OUT_OF_RANGE,
    confluent_kafka.KafkaError._AUTO_OFFSET_RESET,
    confluent_kafka.KafkaError._LOG_TRUNCATION,
}
_NO_TOPIC = {
    confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART,
    confluent_kafka.KafkaError.UNKNOWN_TOPIC_ID,
    confluent_kafka.KafkaError.INCONSISTENT_TOPIC_ID,
    confluent_kafka.KafkaError._UNKNOWN_TOPIC,
    confluent_kafka.KafkaError._UNKNOWN_PARTITION,
}


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


@attrs.define
class _Batch:
    """What the thread gives to Trio."""

    records: dict[bytes, list[Record]] = attrs.field(factory=dict)  # by kind
    ends: dict[int, int] = attrs.field(factory=dict)  # the offset to be read next, by partition


class LogLost(LinkLost):
    """The log does not have our place in this partition any more."""

    def __init__(self, partition: int, why: str) -> None:
        super().__init__(f"partition {partition} does not go on where we were: {why}")
        self.partition = partition


class Reader:
    """Outlives the client; `run` has one at a time."""

    def __init__(self, location: Location, handlers: Mapping[bytes, Handler]) -> None:
        self.places: dict[int, int] = {}
        """The offset to be read next, by partition: all before it has been given to the handlers."""
        self.starts: dict[int, int] = {}
        """Where reading began, as `places`."""
        self._location = location
        self._handlers = handlers
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
            for handler in self._handlers.values():
                handler.lost(partition)

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
        give, take = trio.open_memory_channel[_Batch](_AHEAD)
        feed = _Feed(self._location, starts, give, trio.lowlevel.current_trio_token(), on_error)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_thread, feed.run, feed.stop)
            async for batch in take:
                feed.taken.release()
                self._take(batch)

    def _take(self, batch: _Batch) -> None:
        for kind, records in batch.records.items():
            if (handler := self._handlers.get(kind)) is not None:
                handler.take(records)
        self.places.update(batch.ends)
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


class _Feed:
    """One client and its thread."""

    def __init__(
        self,
        location: Location,
        starts: Mapping[int, int],
        give: trio.MemorySendChannel[_Batch],
        token: trio.lowlevel.TrioToken,
        on_error: OnError,
    ) -> None:
        self.taken = threading.Semaphore(_AHEAD)
        """Released for each batch that Trio has taken."""
        self._location = location
        self._starts = starts
        self._give = give
        self._token = token
        self._on_error = on_error
        self._stopping = False

    def stop(self) -> None:
        """Have `run` return soon."""
        self._stopping = True

    def run(self) -> None:
        """In the thread."""
        topic = self._location.plan.name
        consumer = confluent_kafka.Consumer(_config(self._location, self._on_error))
        try:
            consumer.assign([TopicPartition(topic, partition, start) for partition, start in self._starts.items()])
            while not self._stopping:
                if (first := consumer.poll(POLL_SECONDS)) is not None:
                    # consume() would wait until there are so many; these are there.
                    self._hand_over(self._batch([first, *consumer.consume(_BATCH - 1, 0)]))
        finally:
            consumer.close()

    def _hand_over(self, batch: _Batch) -> None:
        while not self.taken.acquire(timeout=POLL_SECONDS):
            if self._stopping:
                return
        self._token.run_sync_soon(self._give.send_nowait, batch)

    def _batch(self, messages: Sequence[confluent_kafka.Message]) -> _Batch:
        batch = _Batch()
        for message in messages:
            partition, offset = message.partition(), message.offset()
            if (error := message.error()) is not None:
                code = error.code()
                if code == confluent_kafka.KafkaError._PARTITION_EOF:
                    batch.ends[partition] = offset  # more than a record's, where records are not for us to see
                elif code in _NO_SUCH_PLACE:
                    raise LogLost(partition, error.str())
                elif code in _NO_TOPIC:
                    raise LinkLost(f"the topic cannot be read: {error.str()}")
                else:
                    self._on_error(error)
                continue
            batch.ends[partition] = offset + 1
            key = message.key() or b""
            record = Record(
                partition, offset, message.timestamp()[1] / 1_000, key[:1], key[1:], message.value() or b"",
                message.headers() or (),
            )  # fmt: skip
            batch.records.setdefault(record.kind, []).append(record)
        return batch


def _config(location: Location, on_error: OnError) -> Config:
    settings = location.settings
    return {
        **common_config(location, on_error),
        "group.id": "trioroom",  # the client wants one; there is no group, as we assign and commit nothing
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": milliseconds(settings.fetch_wait),
        "fetch.error.backoff.ms": 50,
        "fetch.queue.backoff.ms": 10,
        "queued.max.messages.kbytes": max(1, settings.max_fetched_bytes // 1_024),
        "queued.min.messages": 10_000,
    }
