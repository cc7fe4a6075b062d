"""Topics as another program makes them, adds to them and writes to them. Everything here blocks."""

from __future__ import annotations

import time

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

ROOMS = "trioroom.rooms"
_TIMEOUT = 10.0


def make_topic(bootstrap: str, partitions: int, name: str = ROOMS) -> None:
    """With one replica; it is there when this returns."""
    admin = AdminClient({"bootstrap.servers": bootstrap})  # what it is asked for comes only while it is there
    [made] = admin.create_topics([NewTopic(name, partitions, 1)]).values()
    made.result(_TIMEOUT)


def add_partitions(bootstrap: str, partitions: int, name: str = ROOMS) -> None:
    """Until there are so many."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    [added] = admin.create_partitions([NewPartitions(name, partitions)]).values()
    added.result(_TIMEOUT)
    deadline = time.monotonic() + _TIMEOUT
    while len(admin.list_topics(name).topics[name].partitions) < partitions:  # a broker hears of them later
        assert time.monotonic() < deadline
        time.sleep(0.02)


def write(bootstrap: str, *values: bytes, partition: int = 0, key: bytes = b"t", name: str = ROOMS) -> None:
    """Records of a kind that no node knows, unless ``key`` says another one."""
    producer = Producer({"bootstrap.servers": bootstrap})
    for value in values:
        producer.produce(name, value, key, partition)
    assert producer.flush(_TIMEOUT) == 0
