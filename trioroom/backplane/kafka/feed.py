"""The client that reads, and the thread that gives Trio what it has read, in batches.

It only makes sure that this is one log. A log that was made anew, or a leader that lacked the end of it, may have our
place too when others were quicker to write there; brokers from Apache Kafka 3.1 on say that it is another log, and not
all that speak its protocol do. So whenever a connection is lost reading goes on at the last record that was read, and
not behind it: it has to be the same one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import confluent_kafka
import trio
from confluent_kafka import TopicPartition

from trioroom.backplane.kafka.client import (
    POLL_SECONDS,
    Config,
    KafkaError,
    LibraryLog,
    OnError,
    common_config,
    milliseconds,
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


@attrs.frozen
class Last:
    """What is known of the last record that was read in a partition; a log with another one there is another log."""

    offset: int
    timestamp: int
    key: bytes

    @classmethod
    def of(cls, message: confluent_kafka.Message) -> Last:
        """What is known of this one."""
        return cls(message.offset(), message.timestamp()[1], message.key() or b"")


@attrs.define
class Batch:
    """What the thread gives to Trio."""

    records: dict[bytes, list[Record]] = attrs.field(factory=dict)
    """By kind."""
    ends: dict[int, int] = attrs.field(factory=dict)
    """The offset to be read next, by partition."""
    lasts: dict[int, Last] = attrs.field(factory=dict)
    """By partition."""


class LogLost(LinkLost):
    """The log does not have our place in these partitions any more."""

    def __init__(self, losses: Mapping[int, str]) -> None:
        """``losses`` are partitions with the reason why."""
        which, verb = ("partition", "does") if len(losses) == 1 else ("partitions", "do")
        numbers = ", ".join(map(str, sorted(losses)))
        super().__init__(f"{which} {numbers} {verb} not go on where we were: {next(iter(losses.values()))}")
        self.partitions = frozenset(losses)


class Feed:
    """One client and its thread.

    Args:
        starts: where to read from, by partition.
        lasts: the records before that, of those partitions where they are known.
    """

    def __init__(
        self,
        location: Location,
        starts: Mapping[int, int],
        lasts: Mapping[int, Last],
        on_error: OnError,
    ) -> None:
        self._location = location
        self._places = dict(starts)
        self._lasts = dict(lasts)
        self._on_error = on_error
        self._token = trio.lowlevel.current_trio_token()
        self._give, self.batches = trio.open_memory_channel[Batch](_AHEAD)
        """What was read, for Trio to take."""
        self._room = threading.Semaphore(_AHEAD)
        self._stopping = False
        self._disconnected = False  # since the last look
        self._losses: dict[int, str] = {}  # partitions without our place, with the reason

    def taken(self) -> None:
        """Trio has looked at one of the `batches`."""
        self._room.release()

    def stop(self) -> None:
        """Have `run` return soon."""
        self._stopping = True

    def run(self) -> None:
        """In the thread.

        Raises:
            LogLost: the log does not have a place any more.
            LinkLost: the client is of no more use.
        """
        consumer = confluent_kafka.Consumer(_config(self._location, self._on_error, self._take_disconnect))
        try:
            self._assign(consumer)
            while not self._stopping:
                if messages := self._read(consumer):
                    batch = self._batch(messages)
                    if self._losses:
                        # Mostly the others have lost theirs too, and each by itself would cost a new client.
                        self._batch(consumer.consume(_BATCH, _MORE_LOSSES))
                        raise LogLost(self._losses)
                    self._hand_over(batch)
        finally:
            consumer.close()

    def _assign(self, consumer: confluent_kafka.Consumer) -> None:
        """Have it read from the last record of each partition that we know, else from our place.

        What it has fetched and not given us is dropped.
        """
        topic, lasts = self._location.plan.name, self._lasts
        consumer.assign([
            TopicPartition(topic, partition, lasts[partition].offset if partition in lasts else place)
            for partition, place in self._places.items()
        ])  # fmt: skip

    def _read(self, consumer: confluent_kafka.Consumer) -> list[confluent_kafka.Message]:
        """What has come; nothing when a connection was lost meanwhile, for all comes again then."""
        messages = []
        if (first := consumer.poll(POLL_SECONDS)) is not None:
            # consume() would wait until there are so many; these are there.
            messages = [first, *consumer.consume(_BATCH - 1, 0)]
        if self._disconnected:
            self._disconnected = False
            self._assign(consumer)
            return []
        return messages

    def _take_disconnect(self) -> None:
        """In this thread, as the client calls back while we ask it; so before what it reads when it is back."""
        self._disconnected = True

    def _hand_over(self, batch: Batch) -> None:
        while not self._room.acquire(timeout=POLL_SECONDS):
            if self._stopping:
                return
        self._token.run_sync_soon(self._give.send_nowait, batch)

    def _batch(self, messages: Sequence[confluent_kafka.Message]) -> Batch:
        batch = Batch()
        latest: dict[int, confluent_kafka.Message] = {}
        for message in messages:
            partition, offset = message.partition(), message.offset()
            if (error := message.error()) is not None:
                self._judge(error, partition, offset)
            elif not self._is_known(message, partition, offset):
                latest[partition] = message
                self._places[partition] = offset + 1
                key = message.key() or b""
                record = Record(
                    partition, offset, message.timestamp()[1] / 1_000, key[:1], key[1:], message.value() or b"",
                    message.headers() or (),
                )  # fmt: skip
                batch.records.setdefault(record.kind, []).append(record)
        batch.lasts = {partition: Last.of(message) for partition, message in latest.items()}
        self._lasts.update(batch.lasts)
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

    def _is_known(self, message: confluent_kafka.Message, partition: int, offset: int) -> bool:
        """Whether we have had it before, or it is not for us.

        After an outage the last one is read again. One that stands there and is another one is a loss.
        """
        if partition in self._losses:
            return True
        last = self._lasts.get(partition)
        if last is None or offset > last.offset:
            return False
        if offset == last.offset and Last.of(message) != last:
            self._losses[partition] = f"another record stands at offset {offset}"
        return True


class _ConnectionLog(LibraryLog):
    """Calls ``on_disconnect`` when a connection that was up is lost.

    Nothing else tells of each: an error comes only when all brokers are down at once, or a connection cannot be made,
    and not twice in 30 seconds. This comes ahead of all that has been fetched.
    """

    _LOST = ("state UP -> DOWN", "state REAUTH -> DOWN")

    def __init__(self, on_disconnect: Callable[[], None]) -> None:
        super().__init__()
        self._on_disconnect = on_disconnect

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if args and str(args[-1]).endswith(self._LOST):
            self._on_disconnect()
        super().log(level, msg, *args, **kwargs)


def _config(location: Location, on_error: OnError, on_disconnect: Callable[[], None]) -> Config:
    settings = location.settings
    return {
        **common_config(location, on_error),
        "logger": _ConnectionLog(on_disconnect),
        "debug": "broker",  # what becomes of connections, and nothing while they last
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
