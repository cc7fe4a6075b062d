"""The reading half: all partitions of the topic, in the order of the log, by a thread that gives Trio batches.

No consumer group: each node reads everything, from places that it knows itself, and an outage only makes it wait
there. So nothing is lost by one, unless the log does not have the place any more. A log that was made anew may have
that place too when others were quicker to write to it, and not every broker says that it is another log. So after an
outage reading goes on at the last record that was read, and not behind it: it has to be the same one.
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
    KafkaError,
    OnError,
    common_config,
    milliseconds,
    run_thread,
)
from trioroom.backplane.kafka.location import Location
from trioroom.backplane.kafka.records import Record
from trioroom.backplane.supervision import LinkLost

_BATCH = 512  # records, so that Trio's other tasks wait for no more than a millisecond or two
_MORE_LOSSES = 0.2  # seconds that are waited for the losses of other partitions, after the first
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


@attrs.frozen
class _Last:
    """What is known of the last record that was read in a partition; a log with another one there is another log."""

    offset: int
    timestamp: int
    key: bytes


@attrs.define
class _Batch:
    """What the thread gives to Trio."""

    records: dict[bytes, list[Record]] = attrs.field(factory=dict)  # by kind
    ends: dict[int, int] = attrs.field(factory=dict)  # the offset to be read next, by partition
    lasts: dict[int, _Last] = attrs.field(factory=dict)  # by partition


class LogLost(LinkLost):
    """The log does not have our place in these partitions any more."""

    def __init__(self, losses: Mapping[int, str]) -> None:
        """``losses`` are partitions with the reason why."""
        which, verb = ("partition", "does") if len(losses) == 1 else ("partitions", "do")
        numbers = ", ".join(map(str, sorted(losses)))
        super().__init__(f"{which} {numbers} {verb} not go on where we were: {next(iter(losses.values()))}")
        self.partitions = frozenset(losses)


class Reader:
    """Outlives the client; `run` has one at a time."""

    def __init__(self, location: Location, handlers: Mapping[bytes, Handler]) -> None:
        self.places: dict[int, int] = {}
        """The offset to be read next, by partition: all before it has been given to the handlers."""
        self.starts: dict[int, int] = {}
        """Where reading began, as `places`."""
        self._location = location
        self._handlers = handlers
        self._lasts: dict[int, _Last] = {}  # none where we have not read so far, or lost our place
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
        feed = _Feed(self._location, starts, self._lasts, give, trio.lowlevel.current_trio_token(), on_error)
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


class _Feed:
    """One client and its thread."""

    def __init__(
        self,
        location: Location,
        starts: Mapping[int, int],
        lasts: Mapping[int, _Last],
        give: trio.MemorySendChannel[_Batch],
        token: trio.lowlevel.TrioToken,
        on_error: OnError,
    ) -> None:
        self.taken = threading.Semaphore(_AHEAD)
        """Released for each batch that Trio has taken."""
        self._location = location
        self._places = dict(starts)
        self._lasts = dict(lasts)
        self._give = give
        self._token = token
        self._on_error = on_error
        self._stopping = False
        self._was_away = False  # all brokers were, since the last look
        self._losses: dict[int, str] = {}  # partitions without our place, with the reason

    def stop(self) -> None:
        """Have `run` return soon."""
        self._stopping = True

    def run(self) -> None:
        """In the thread."""
        consumer = confluent_kafka.Consumer(_config(self._location, self._take_error))
        try:
            self._assign(consumer)
            while not self._stopping:
                if (first := consumer.poll(POLL_SECONDS)) is not None:
                    # consume() would wait until there are so many; these are there.
                    messages = [first, *consumer.consume(_BATCH - 1, 0)]
                else:
                    messages = []
                if self._was_away:
                    self._was_away = False
                    self._assign(consumer)
                    messages = [each for each in messages if each.error() is not None]  # the others come again
                if messages:
                    batch = self._batch(messages)
                    if self._losses:
                        # Mostly the others have lost theirs too, and each by itself would cost a new client.
                        self._batch(consumer.consume(_BATCH, _MORE_LOSSES))
                        raise LogLost(self._losses)
                    self._hand_over(batch)
        finally:
            consumer.close()

    def _assign(self, consumer: confluent_kafka.Consumer) -> None:
        """Have it read from the last record of each partition that we know, else from our place."""
        topic, lasts = self._location.plan.name, self._lasts
        consumer.assign([
            TopicPartition(topic, partition, lasts[partition].offset if partition in lasts else place)
            for partition, place in self._places.items()
        ])  # fmt: skip

    def _take_error(self, error: KafkaError) -> None:
        """In this thread, as the client calls back while we ask it; so before what it reads when it is back."""
        if error.code() == confluent_kafka.KafkaError._ALL_BROKERS_DOWN:
            self._was_away = True
        self._on_error(error)

    def _hand_over(self, batch: _Batch) -> None:
        while not self.taken.acquire(timeout=POLL_SECONDS):
            if self._stopping:
                return
        self._token.run_sync_soon(self._give.send_nowait, batch)

    def _batch(self, messages: Sequence[confluent_kafka.Message]) -> _Batch:
        batch = _Batch()
        for message in messages:
            if (error := message.error()) is not None:
                self._judge(error, message.partition(), message.offset())
            elif not self._is_known(message):
                partition, offset, key = message.partition(), message.offset(), message.key() or b""
                timestamp = message.timestamp()[1]
                self._places[partition] = offset + 1
                self._lasts[partition] = batch.lasts[partition] = _Last(offset, timestamp, key)
                record = Record(
                    partition, offset, timestamp / 1_000, key[:1], key[1:], message.value() or b"",
                    message.headers() or (),
                )  # fmt: skip
                batch.records.setdefault(record.kind, []).append(record)
        batch.ends = {each: self._places[each] for each in {m.partition() for m in messages} & self._places.keys()}
        return batch

    def _judge(self, error: KafkaError, partition: int, offset: int) -> None:
        code = error.code()
        if code == confluent_kafka.KafkaError._PARTITION_EOF:
            # More than a record's, where records are not for us to see. Less, where the leader is a new one that has
            # not heard yet how much has been confirmed.
            self._places[partition] = max(offset, self._places[partition])
        elif code in _NO_SUCH_PLACE:
            self._losses[partition] = error.str()
        elif code in _NO_TOPIC:
            raise LinkLost(f"the topic cannot be read: {error.str()}")
        elif code == confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise LinkLost(f"not allowed to read topic {self._location.plan.name}; allow this user Read on it")
        else:
            self._on_error(error)

    def _is_known(self, message: confluent_kafka.Message) -> bool:
        """Whether we have had it before, or it is not for us.

        After an outage the last one is read again. One that stands there and is another one is a loss.
        """
        if message.partition() in self._losses:
            return True
        last = self._lasts.get(message.partition())
        if last is None or message.offset() > last.offset:
            return False
        found = _Last(message.offset(), message.timestamp()[1], message.key() or b"")
        if found.offset == last.offset and found != last:
            self._losses[message.partition()] = f"another record stands at offset {message.offset()}"
        return True


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
