"""The topic: found, or made as planned; and where to begin to read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

import attrs
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from trioroom.backplane.kafka.client import POLL_SECONDS, LinkLost, common_config, milliseconds
from trioroom.backplane.kafka.location import Location

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
        self._plan = location.plan
        self._topic = location.plan.name
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
        settings, plan = self._settings, self._plan
        new = NewTopic(plan.name, plan.partitions, settings.replication_factor, config=plan.config)
        try:
            [made] = self._client.create_topics([new], request_timeout=settings.connect_timeout).values()
            self._result(made.result)
        except KafkaException as exc:
            if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # by another node, at the same moment
                raise self._lost(exc, f"make topic {self._topic}") from exc

    def close(self) -> None:
        """The client ends with the last reference to it, and it has one to us: nobody is to wait for the collector."""
        del self._client

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


def find_starts(location: Location, ends: Mapping[int, int], since: float) -> dict[int, int]:
    """The offset of the first record of each partition that is not older than ``since``; one of ``ends`` if none is.

    Blocks for ``connect_timeout`` at most. (An `Admin` could ask too, and one in fifty that are new gets no answer.)

    Args:
        since: seconds since 1970.
    Raises:
        LinkLost: no answer.
    """
    topic, timeout = location.plan.name, location.settings.connect_timeout
    consumer = Consumer({**common_config(location, lambda _: None), "group.id": "trioroom"})
    try:
        wanted = [TopicPartition(topic, partition, round(since * 1_000)) for partition in ends]
        found = consumer.offsets_for_times(wanted, timeout=timeout)
    except KafkaException as exc:
        raise LinkLost(f"cannot ask where to read topic {topic} from: {exc.args[0].str()}") from exc
    finally:
        consumer.close()
    starts: dict[int, int] = {}
    for place in found:
        if place.error is not None:
            raise LinkLost(f"cannot ask where to read partition {place.partition} from: {place.error.str()}")
        end = ends[place.partition]
        starts[place.partition] = min(place.offset, end) if place.offset >= 0 else end
    return starts
