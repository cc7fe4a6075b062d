"""The topic: found, or made as the settings say; and where to begin to read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import attrs
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from trioroom.backplane.kafka.client import POLL_SECONDS, LinkLost, common_config, milliseconds
from trioroom.backplane.kafka.location import Location
from trioroom.backplane.kafka.settings import OVERHEAD_BYTES, KafkaSettings

T = TypeVar("T")
_NONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)


@attrs.frozen
class Topic:
    """As the brokers describe it."""

    name: str
    partitions: int
    incarnation: str
    """Another one after it was deleted and made anew; empty where the broker does not say."""


class Admin:
    """Asks the brokers about the topic, blocking; for a worker thread, and for one use."""

    def __init__(self, location: Location) -> None:
        self._settings = location.settings
        self._topic = location.settings.topic
        self._trouble: str | None = None
        self._stopping = False
        config = {**common_config(location, self._note), "socket.timeout.ms": self._milliseconds}
        self._client = AdminClient(config)

    @property
    def _milliseconds(self) -> int:
        return milliseconds(self._settings.connect_timeout)

    def _note(self, error: KafkaError) -> None:
        self._trouble = error.str()

    def find(self) -> Topic | None:
        """The topic, or None if there is none.

        Raises:
            LinkLost: the brokers cannot be reached, or do not want us.
        """
        try:
            [described] = self._client.describe_topics(
                TopicCollection([self._topic]), request_timeout=self._settings.connect_timeout
            ).values()
            description = self._result(described.result)
        except KafkaException as exc:
            if exc.args[0].code() in _NONE:
                return None
            raise self._lost(exc, f"describe topic {self._topic}") from exc
        identity = description.topic_id
        return Topic(self._topic, len(description.partitions), "" if identity is None else str(identity))

    def find_or_make(self) -> Topic:
        """Raises `LinkLost`, as `find` does."""
        topic = self.find()
        for _ in range(10):
            if topic is not None and topic.partitions:
                return topic
            self._make()
            topic = self.find()
        raise LinkLost(f"topic {self._topic} was made and is not there yet")

    def _make(self) -> None:
        settings = self._settings
        new = NewTopic(
            self._topic, settings.partitions, settings.replication_factor, config=_topic_config(settings)
        )
        try:
            [made] = self._client.create_topics([new], request_timeout=settings.connect_timeout).values()
            self._result(made.result)
        except KafkaException as exc:
            if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # by another node, at the same moment
                raise self._lost(exc, f"make topic {self._topic}") from exc

    def starts(self, ends: Sequence[int], since: float) -> list[int]:
        """The offset of the first record of each partition that is not older than ``since``; one of ``ends`` if none is.

        Args:
            since: seconds since 1970.
        """
        spec = OffsetSpec.for_timestamp(round(since * 1_000))
        wanted = {TopicPartition(self._topic, partition): spec for partition in range(len(ends))}
        try:
            found = self._client.list_offsets(wanted, request_timeout=self._settings.connect_timeout)
            offsets = {place.partition: self._result(future.result).offset for place, future in found.items()}
        except KafkaException as exc:
            raise self._lost(exc, f"ask where to read topic {self._topic} from") from exc
        return [min(offsets[partition], end) if offsets[partition] >= 0 else end for partition, end in enumerate(ends)]

    def stop(self) -> None:
        """Have another thread that waits here raise `LinkLost` soon."""
        self._stopping = True

    def _result(self, result: Callable[[float], T]) -> T:
        while not self._stopping:  # the client has a deadline of its own
            self._client.poll(0)  # serves what it has to say about connections
            with suppress(TimeoutError):
                return result(POLL_SECONDS)
        raise LinkLost("the link is closed")

    def _lost(self, exc: KafkaException, what: str) -> LinkLost:
        error = exc.args[0]
        if error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
            return LinkLost(f"not allowed to {what}; allow this user Describe, Create, Read and Write on it")
        because = f" ({self._trouble})" if self._trouble else ""
        return LinkLost(f"cannot {what}: {error.str()}{because}")


def _topic_config(settings: KafkaSettings) -> dict[str, str]:
    return {
        "retention.ms": str(milliseconds(settings.retention)),
        "max.message.bytes": str(settings.max_publication_bytes + OVERHEAD_BYTES),
        # One clock for each partition, so that all nodes find the same ids too old.
        "message.timestamp.type": "LogAppendTime",
    }
