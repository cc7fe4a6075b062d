"""What becomes of records whose client comes to an end."""

from __future__ import annotations

import gc
import math
from pathlib import Path

import pytest
import trio
import trio.testing
from confluent_kafka import KafkaError

from tests.backplane.kafka.brokers import new_topic
from tests.backplane.kafka.mock_cluster import ApiKey, MockCluster
from trioroom._core.meters import LinkMeters
from trioroom.backplane.kafka.location import parse_location
from trioroom.backplane.kafka.producer import Producer, _Pending
from trioroom.backplane.supervision import LinkLost
from trioroom.errors import BackplaneUnavailable

pytestmark = pytest.mark.kafka


async def test_records_that_nobody_answers_are_given_back_with_the_client(mock_cluster: MockCluster) -> None:
    producer = Producer(parse_location(new_topic(mock_cluster)), LinkMeters())
    before = pending_records()
    async with trio.open_nursery() as running:
        await running.start(producer.run, lambda error: None)
        await producer.produce(0, b"key", b"there")
        mock_cluster.set_down()
        with trio.move_on_after(0.2):
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(producer.produce, 0, b"key", b"lost")
        assert producer.queued == 100
        running.cancel_scope.cancel()
    assert producer.queued == 0
    assert pending_records() == before


def pending_records() -> int:
    gc.collect()
    return sum(isinstance(each, _Pending) for each in gc.get_objects())


async def test_what_was_cancelled_counts_until_it_is_confirmed(
    mock_cluster: MockCluster, autojump_clock: trio.testing.MockClock
) -> None:
    # The library waits for as long in real time, so that it gives up nothing here.
    producer = Producer(
        parse_location(f"{new_topic(mock_cluster)}&max_queued_publications=4&timeout=300"), LinkMeters()
    )
    async with trio.open_nursery() as running:
        await running.start(producer.run, lambda error: None)
        mock_cluster.set_down()
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(producer.produce, 0, b"key", b"cancelled")
        with pytest.raises(BackplaneUnavailable, match="left no room for another within timeout=300 s"):
            await producer.produce(0, b"key", b"x")
        autojump_clock.autojump_threshold = math.inf  # the end of the thread is waited for
        running.cancel_scope.cancel()


async def test_client_that_can_write_no_more_has_ended_before_that_is_told(mock_cluster: MockCluster) -> None:
    producer = Producer(parse_location(new_topic(mock_cluster)), LinkMeters())
    alive = 0
    told: list[BaseException] = []

    async def fail() -> None:
        nonlocal alive
        await producer.produce(0, b"key", b"there")
        alive = client_threads()
        mock_cluster.push_errors(ApiKey.PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
        with pytest.raises(BackplaneUnavailable):
            await producer.produce(0, b"key", b"lost")

    with trio.fail_after(10):
        try:
            async with trio.open_nursery() as running:
                await running.start(producer.run, lambda error: None)
                running.start_soon(fail)
        except* LinkLost as group:
            told.append(group)
            assert client_threads() <= alive - 4 or not alive  # the error with its frames is still there
    assert told


def client_threads() -> int:
    """Those of the library itself; on Linux, where they can be told by their names."""
    tasks = Path("/proc/self/task")
    return sum(path.read_text().startswith("rdk:") for path in tasks.glob("*/comm"))
