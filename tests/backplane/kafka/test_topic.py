"""Asking the brokers about the topic."""

from __future__ import annotations

import threading
import time
from typing import Any, ClassVar

import pytest
import trio
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from tests.backplane.kafka.mock_cluster import ApiKey, MockCluster
from tests.backplane.kafka.servers import NoidaServer
from trioroom.backplane.kafka import topic
from trioroom.backplane.kafka.location import parse_location
from trioroom.backplane.kafka.topic import find_or_make_topic, find_starts
from trioroom.backplane.supervision import LinkLost

pytestmark = pytest.mark.kafka


def test_where_to_read_from_is_asked_again(mock_cluster: MockCluster) -> None:
    mock_cluster.create_topic("trioroom.rooms", 2)
    mock_cluster.push_errors(ApiKey.LIST_OFFSETS, *[KafkaError.LEADER_NOT_AVAILABLE] * 3)
    starts = find_starts(parse_location(mock_cluster.url), threading.Event(), ends={0: 5, 1: 7}, since=time.time() + 60)
    assert starts.keys() == {0, 1}


async def test_asking_where_to_read_from_ends_when_it_is_stopped(mock_cluster: MockCluster) -> None:
    location = parse_location(f"{mock_cluster.url}?connect_timeout=60")
    mock_cluster.set_down()
    stopping = threading.Event()

    def ask() -> None:
        with pytest.raises(LinkLost, match=r"^cannot ask where to read topic trioroom\.rooms from"):
            find_starts(location, stopping, ends={0: 5}, since=0.0)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, ask)
            await trio.sleep(0.1)
            stopping.set()


async def test_topic_that_was_made_is_waited_for(noida: NoidaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker that is asked hears of it later than the controller that made it; noida is both."""
    find, began = topic._Admin.find, time.monotonic()

    def find_later(admin: topic._Admin) -> topic.Topic | None:
        return find(admin) if time.monotonic() > began + 0.5 else None

    monkeypatch.setattr(topic._Admin, "find", find_later)
    assert find_or_make_topic(parse_location(noida.url), threading.Event()).partitions == 8


class Unsettled(AdminClient):  # type: ignore[misc]  # it has no types
    """Of a cluster that has just started, as its brokers do not know all of each other yet."""

    errors: ClassVar[list[int]] = []

    def create_topics(self, *args: Any, **kwargs: Any) -> Any:
        if self.errors:
            raise KafkaException(KafkaError(self.errors.pop()))
        return super().create_topics(*args, **kwargs)


async def test_topic_is_made_when_the_cluster_can(noida: NoidaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic, "AdminClient", Unsettled)
    Unsettled.errors[:] = [KafkaError._DESTROY_BROKER, KafkaError.INVALID_REPLICATION_FACTOR]
    assert find_or_make_topic(parse_location(noida.url), threading.Event()).partitions == 8
    assert Unsettled.errors == []


async def test_topic_that_cannot_be_made_for_long_says_why(noida: NoidaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic, "AdminClient", Unsettled)
    Unsettled.errors[:] = [KafkaError.INVALID_REPLICATION_FACTOR] * 1_000
    location = parse_location(f"{noida.url}?connect_timeout=1")
    with pytest.raises(LinkLost, match=r"^cannot make topic trioroom\.rooms: .*replication factor"):
        find_or_make_topic(location, threading.Event())
    assert 0 < len(Unsettled.errors) < 1_000


async def test_topic_of_a_broker_that_gives_no_ids_has_no_incarnation(noida: NoidaServer) -> None:
    assert find_or_make_topic(parse_location(noida.url), threading.Event()).incarnation == ""
