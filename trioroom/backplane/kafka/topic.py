"""The topic: found, or made as planned; and where to begin to read it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import attrs
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition, Uuid
from confluent_kafka.admin import AdminClient, NewTopic

from trioroom.backplane.kafka.client import POLL_SECONDS, LibraryLog, common_config, milliseconds
from trioroom.backplane.kafka.location import Location, in_our_words
from trioroom.backplane.supervision import LinkLost

T = TypeVar("T")
_LONGEST_ASKING = 2.0  # seconds: who asks cannot be stopped meanwhile
_PAUSE = 0.05  # seconds before the next try
_NO_ID = str(Uuid(0, 0))  # of a topic whose broker gives none
_ADVICE = {
    "Disconnected": (
        "a broker that closes connections at once may want TLS, kafka+tls://, a certificate, ssl_certfile, or user and "
        "password"
    ),
    "certificate verify failed": "name who has signed its certificate by ssl_ca_certs, and the broker as that does",
    "SASL": "check user, password and sasl_mechanism",
}
_PASSING = {
    KafkaError._DESTROY_BROKER,  # the client has heard of the cluster from another broker, which left this one out
    KafkaError._TRANSPORT,
    KafkaError.NOT_CONTROLLER,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.INVALID_REPLICATION_FACTOR,  # so many brokers are not up yet
}
"""What a cluster answers that has just started, or is losing a broker."""
_NONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)


class _NotNow(LinkLost):
    """The cluster could not answer, and may be able to in a moment."""


@attrs.frozen
class Topic:
    """As the brokers describe it."""

    name: str
    partitions: int
    incarnation: str
    """Another one after it was deleted and made anew; empty where the broker does not say."""


def find_topic(location: Location, stopping: threading.Event) -> Topic | None:
    """The topic, or None if there is none. Blocks for ``connect_timeout`` at most, or until ``stopping`` is set.

    Raises:
        LinkLost: the brokers cannot be reached, or do not want us.
    """
    with _open_admin(location, stopping) as admin:
        return admin.find()


def find_or_make_topic(location: Location, stopping: threading.Event) -> Topic:
    """As `find_topic`; one that is not there is made as planned."""
    with _open_admin(location, stopping) as admin:
        return admin.find_or_make()


@contextmanager
def _open_admin(location: Location, stopping: threading.Event) -> Iterator[_Admin]:
    admin = _Admin(location, stopping)
    try:
        yield admin
    finally:
        admin.close()


class _Admin:
    """Asks the brokers about the topic, blocking."""

    def __init__(self, location: Location, stopping: threading.Event) -> None:
        self._settings = location.settings
        self._plan = location.plan
        self._topic = location.plan.name
        self._stopping = stopping
        self._troubles: deque[str] = deque(maxlen=1)
        self._client = AdminClient({
            **common_config(location, lambda error: None),
            "logger": _TroubleLog(self._troubles),
            "log.connection.close": True,
            "socket.timeout.ms": milliseconds(self._settings.connect_timeout),
        })  # fmt: skip

    def find(self) -> Topic | None:
        try:
            [described] = self._client.describe_topics(
                TopicCollection([self._topic]), request_timeout=self._settings.connect_timeout
            ).values()
            description = self._result(described.result)
        except KafkaException as exc:
            if exc.args[0].code() in _NONE:
                return None
            raise self._lost(exc, f"describe topic {self._topic}") from exc
        identity = str(description.topic_id or "")
        return Topic(self._topic, len(description.partitions), "" if identity == _NO_ID else identity)

    def find_or_make(self) -> Topic:
        # The controller answers when it has made the topic, and the broker that we ask hears of it some time later.
        deadline = time.monotonic() + self._settings.connect_timeout
        while True:
            try:
                if (topic := self.find()) is not None and topic.partitions:
                    return topic
                self._make()
                failure = LinkLost(f"topic {self._topic} was made and is not there yet")
            except _NotNow as exc:
                failure = exc
            if self._stopping.wait(_PAUSE) or time.monotonic() > deadline:
                raise failure

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
        """The client ends with the last reference to it, which an error that comes from here would have for longer."""
        del self._client

    def _result(self, result: Callable[[float], T]) -> T:
        while not self._stopping.is_set():  # the client has a deadline of its own
            self._client.poll(0)  # serves what it has to say about connections
            with suppress(TimeoutError):
                return result(POLL_SECONDS)
        raise LinkLost("the link is closed")

    def _lost(self, exc: KafkaException, what: str) -> LinkLost:
        error = exc.args[0]
        if error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
            return LinkLost(f"not allowed to {what}; allow this user Describe, Create, Read and Write on it")
        text = f"cannot {what}: {error.str()}"
        if self._troubles:
            trouble = in_our_words(self._troubles[0])
            text += f" ({trouble})" + next((f"; {advice}" for sign, advice in _ADVICE.items() if sign in trouble), "")
        return (_NotNow if error.code() in _PASSING else LinkLost)(text)


class _TroubleLog(LibraryLog):
    """Keeps the last reason why a connection could not be made or was closed.

    The client has errors for some of them only: not for one that the broker closes, as it does when it wants TLS, a
    certificate or a password and is not given one.
    """

    def __init__(self, troubles: deque[str]) -> None:
        super().__init__()
        self._troubles = troubles

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if args and args[0] == "FAIL":
            _, _, text = str(args[-1]).partition("]: ")  # behind the thread's name
            self._troubles.append(text)
        super().log(level, msg, *args, **kwargs)


def find_starts(
    location: Location, stopping: threading.Event, *, ends: Mapping[int, int], since: float
) -> dict[int, int]:
    """The offset of the first record of each partition that is not older than ``since``; one of ``ends`` if none is.

    Blocks for ``connect_timeout`` at most. (An `AdminClient` could ask too, and one in fifty that are new gets no
    answer.)

    Args:
        since: seconds since 1970.
    Raises:
        LinkLost: no answer.
    """
    topic, deadline = location.plan.name, time.monotonic() + location.settings.connect_timeout
    wanted = [TopicPartition(topic, partition, round(since * 1_000)) for partition in ends]
    consumer = Consumer({**common_config(location, lambda _: None), "group.id": "trioroom"})
    try:
        while True:
            left = max(POLL_SECONDS, deadline - time.monotonic())
            try:
                found = _ask_starts(consumer, wanted, min(left, _LONGEST_ASKING))
                break
            except KafkaException as exc:  # one that is new says that all brokers are down when it has not got to any
                if stopping.is_set() or time.monotonic() > deadline:
                    text = f"cannot ask where to read topic {topic} from: {exc.args[0].str()}"
                    raise LinkLost(text) from exc
            stopping.wait(_PAUSE)
    finally:
        consumer.close()
    return {
        each.partition: min(each.offset, ends[each.partition]) if each.offset >= 0 else ends[each.partition]
        for each in found
    }


def _ask_starts(consumer: Consumer, wanted: list[TopicPartition], timeout: float) -> list[TopicPartition]:
    found: list[TopicPartition] = consumer.offsets_for_times(wanted, timeout=timeout)
    for each in found:
        if each.error is not None:
            raise KafkaException(each.error)
    return found
