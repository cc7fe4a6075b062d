"""librdkafka's mock cluster: several brokers in this process whose leaders, errors and outages a test commands.

It is a part of the librdkafka that confluent-kafka's wheel brings (BSD-2-Clause), made for its own tests: see
``rdkafka_mock.h``. It speaks the protocol over real sockets and keeps records as a broker does, without compaction and
retention. It lives in a thread of its own, so that it serves while Trio runs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, Final

import confluent_kafka
from confluent_kafka import Consumer, TopicPartition

_PRODUCER: Final = 0  # rd_kafka_type_t
_ERROR_BYTES: Final = 512
_OFFSETS_TIMEOUT: Final = 5.0
_Pointer: Final = ctypes.c_void_p
_Text: Final = ctypes.c_char_p
_SIGNATURES: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "new": (_Pointer, (ctypes.c_int, _Pointer, _Text, ctypes.c_size_t)),
    "destroy": (None, (_Pointer,)),
    "mock_cluster_new": (_Pointer, (_Pointer, ctypes.c_int)),
    "mock_cluster_destroy": (None, (_Pointer,)),
    "mock_cluster_bootstraps": (_Text, (_Pointer,)),
    "mock_set_controller_id": (ctypes.c_int, (_Pointer, ctypes.c_int32)),
    "mock_topic_create": (ctypes.c_int, (_Pointer, _Text, ctypes.c_int, ctypes.c_int)),
    "mock_topic_delete": (ctypes.c_int, (_Pointer, _Text)),
    "mock_topic_set_error": (None, (_Pointer, _Text, ctypes.c_int)),
    "mock_partition_set_leader": (ctypes.c_int, (_Pointer, _Text, ctypes.c_int32, ctypes.c_int32)),
    "mock_partition_delete_records": (ctypes.c_int, (_Pointer, _Text, ctypes.c_int32, ctypes.c_int64)),
    "mock_broker_set_down": (ctypes.c_int, (_Pointer, ctypes.c_int32)),
    "mock_broker_set_up": (ctypes.c_int, (_Pointer, ctypes.c_int32)),
    "mock_broker_set_rtt": (ctypes.c_int, (_Pointer, ctypes.c_int32, ctypes.c_int)),
    "mock_push_request_errors_array": (None, (_Pointer, ctypes.c_int16, ctypes.c_size_t, _Pointer)),
    "mock_clear_request_errors": (None, (_Pointer, ctypes.c_int16)),
}


class ApiKey(IntEnum):
    """Requests of the protocol."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    FIND_COORDINATOR = 10
    CREATE_TOPICS = 19
    INIT_PRODUCER_ID = 22


class MockError(Exception):
    """librdkafka does not do it, for the reason of this number."""


class MockCluster:
    """Brokers 1 to ``brokers``; made by `open_mock_cluster`. A topic that is asked about is made, with four partitions.

    Errors are librdkafka's numbers, those of ``confluent_kafka.KafkaError``.
    """

    def __init__(self, library: Any, cluster: int, brokers: int) -> None:
        self._library = library
        self._cluster = cluster
        self.brokers = range(1, brokers + 1)
        bootstrap: bytes = library.rd_kafka_mock_cluster_bootstraps(cluster)
        self.bootstrap = bootstrap.decode()
        """What confluent-kafka calls ``bootstrap.servers``."""
        self.url = f"kafka://{self.bootstrap}"
        self._do("set_controller_id", 1)  # whom the admin client asks about topics; else there is none

    # -- topics --------------------------------------------------------------------------------

    def create_topic(self, topic: str, partitions: int = 1, replication: int = 1) -> None:
        """Before anybody has asked about it."""
        self._do("topic_create", topic.encode(), partitions, replication)

    def delete_topic(self, topic: str) -> None:
        """Whoever asks for it next has it made anew, empty, with another id."""
        self._do("topic_delete", topic.encode())

    def set_topic_error(self, topic: str, error: int) -> None:
        """What metadata says of the topic from now on; 0 is no error."""
        self._library.rd_kafka_mock_topic_set_error(self._cluster, topic.encode(), error)

    def set_leader(self, topic: str, partition: int, broker: int | None) -> None:
        """None: it has no leader."""
        self._do("partition_set_leader", topic.encode(), partition, -1 if broker is None else broker)

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """As retention does with those below the offset ``before``."""
        self._do("partition_delete_records", topic.encode(), partition, before)

    def offsets(self, topic: str, partition: int) -> tuple[int, int]:
        """The first one that is kept, and the one that the next record will have. Blocks; asks as a consumer does."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "offsets"})
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_OFFSETS_TIMEOUT)
            return low, high
        finally:
            consumer.close()

    # -- brokers -------------------------------------------------------------------------------

    def set_down(self, *brokers: int) -> None:
        """They close their connections and take no more; all when none is named. Records stay."""
        for broker in brokers or self.brokers:
            self._do("broker_set_down", broker)

    def set_up(self, *brokers: int) -> None:
        """They are there again."""
        for broker in brokers or self.brokers:
            self._do("broker_set_up", broker)

    def set_round_trip(self, seconds: float, *brokers: int) -> None:
        """Each answer takes so long from now on."""
        for broker in brokers or self.brokers:
            self._do("broker_set_rtt", broker, round(seconds * 1000))

    def push_errors(self, api: ApiKey, *errors: int) -> None:
        """The next requests of this kind are answered with these errors, one each; 0 lets one through."""
        array = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, api, len(errors), array)

    def clear_errors(self, api: ApiKey) -> None:
        """Those that have not been given yet will not be."""
        self._library.rd_kafka_mock_clear_request_errors(self._cluster, api)

    def _do(self, what: str, *arguments: bytes | int) -> None:
        error = getattr(self._library, f"rd_kafka_mock_{what}")(self._cluster, *arguments)
        if error:
            raise MockError(f"{what}{arguments}: {error}")


@cache
def _library() -> Any:
    """The one that confluent_kafka has loaded: it is in this process once."""
    site = Path(confluent_kafka.__file__).parent
    places = (site.parent / "confluent_kafka.libs", site / ".dylibs")  # of wheels for Linux and macOS
    path = next(path for place in places for path in place.glob("librdkafka*"))
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, f"rd_kafka_{name}")
        function.restype, function.argtypes = result, arguments
    return library


@contextmanager
def open_mock_cluster(brokers: int = 3) -> Iterator[MockCluster]:
    """Up when this is entered, gone when it is left."""
    library = _library()
    message = ctypes.create_string_buffer(_ERROR_BYTES)
    owner = library.rd_kafka_new(_PRODUCER, None, message, _ERROR_BYTES)  # a cluster lives in a client
    if not owner:
        raise MockError(message.value.decode())
    try:
        cluster = library.rd_kafka_mock_cluster_new(owner, brokers)
        try:
            yield MockCluster(library, cluster, brokers)
        finally:
            library.rd_kafka_mock_cluster_destroy(cluster)
    finally:
        library.rd_kafka_destroy(owner)
