"""Places in the log, where the broker does not say all that it could."""

from __future__ import annotations

import pytest
import trio
from confluent_kafka import KafkaError

from tests.backplane.kafka.brokers import new_topic
from tests.backplane.kafka.mock_cluster import ApiKey, MockCluster
from trioroom._core.meters import LinkMeters
from trioroom.backplane.kafka.location import parse_location
from trioroom.backplane.kafka.marks import Marks
from trioroom.backplane.kafka.producer import Producer

pytestmark = pytest.mark.kafka


async def test_mark_whose_offset_is_not_told_is_written_again(mock_cluster: MockCluster) -> None:
    producer = Producer(parse_location(new_topic(mock_cluster)), LinkMeters())
    marks = Marks(producer, b"node")
    with trio.fail_after(10):
        async with trio.open_nursery() as running:
            await running.start(producer.run, lambda error: None)
            await running.start(marks.run)
            assert await marks.offset(0) == 0
            mock_cluster.push_errors(ApiKey.PRODUCE, KafkaError.DUPLICATE_SEQUENCE_NUMBER)
            assert await marks.offset(0) >= 1
            running.cancel_scope.cancel()
