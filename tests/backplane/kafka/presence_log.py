"""The topic of presence as a test looks at it, and writes to it what no node would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import trio
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from trioroom.backplane.kafka.presence_records import Row, SeatId, Statement, read, write
from trioroom.backplane.kafka.records import PRESENCE

TIMEOUT = 5.0


class PresenceLog:
    """Its calls take their time in a thread: a node of the same process has to go on beating."""

    def __init__(self, bootstrap: str, prefix: str = "trioroom") -> None:
        self.bootstrap = bootstrap
        self.topic = f"{prefix}.presence"

    async def say(self, *statements: Statement) -> None:
        """As a node would say it."""
        await self.put(*((PRESENCE + name.encode(), value) for name, value in map(write, statements)))

    async def put(self, *records: tuple[bytes, bytes | None]) -> None:
        """Keys and values."""
        await trio.to_thread.run_sync(self._put, records)

    def _put(self, records: tuple[tuple[bytes, bytes | None], ...]) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap})
        for key, value in records:
            producer.produce(self.topic, value, key, 0)
        assert producer.flush(TIMEOUT) == 0

    async def kept(self) -> list[Statement]:
        """What compaction would keep of what nodes have said: the last of each key, without tombstones."""
        last: dict[bytes, bytes | None] = {}
        for key, value in await self.records():
            if key.startswith(PRESENCE):
                last[key] = value
        statements = []
        for key, value in last.items():
            with suppress(ValueError):  # it is none of ours
                statements += [] if value is None else [read(key[1:], value)]
        return statements

    async def rows(self) -> list[Row]:
        return [statement for statement in await self.kept() if isinstance(statement, Row)]

    async def seats(self) -> set[SeatId]:
        return {row.seat for row in await self.rows()}

    async def records(self) -> list[tuple[bytes, bytes | None]]:
        """All, keys and values."""
        return await trio.to_thread.run_sync(lambda: list(self._read()))

    def _read(self) -> Iterator[tuple[bytes, bytes | None]]:
        with self._consumer() as consumer:
            while (message := consumer.poll(TIMEOUT)) is not None:
                if (error := message.error()) is None:
                    yield message.key() or b"", message.value()
                elif error.code() == KafkaError._PARTITION_EOF:
                    return

    @contextmanager
    def _consumer(self) -> Iterator[Consumer]:
        prompt = {"enable.partition.eof": True, "fetch.wait.max.ms": 10, "log_level": 0}
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "tests", **prompt})
        try:
            consumer.assign([TopicPartition(self.topic, 0, 0)])
            yield consumer
        finally:
            consumer.close()
