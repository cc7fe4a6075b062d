"""The brokers that tests run on do what the tests of the backplane count on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tests.backplane.kafka.mock_cluster import ApiKey, MockCluster, MockError, open_mock_cluster
from tests.backplane.kafka.servers import NoidaServer, TansuServer
from tests.backplane.kafka.topics import make_topic

pytestmark = pytest.mark.kafka
TIMEOUT = 10.0
QUICK = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 50, "log_level": 0}


def produce(bootstrap: str, *values: bytes, topic: str = "rooms", timeout: float = TIMEOUT) -> list[int]:
    """The offsets that they got in partition 0; raises what the first that failed says."""
    producer = Producer({"bootstrap.servers": bootstrap, "message.timeout.ms": int(timeout * 1000), **QUICK})
    offsets: list[int] = []
    errors: list[KafkaError] = []

    def told(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            errors.append(error)
        elif (offset := message.offset()) is not None:
            offsets.append(offset)

    for value in values:
        producer.produce(topic, value, partition=0, on_delivery=told)
    assert producer.flush(timeout + TIMEOUT) == 0  # librdkafka looks at deadlines once a second, if it gets to it
    if errors:
        raise KafkaException(errors[0])
    return offsets


def consume(bootstrap: str, count: int, topic: str = "rooms") -> list[bytes | None]:
    """The first values of partition 0."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "tests", **QUICK})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        return [message.value() for message in consumer.consume(count, TIMEOUT)]
    finally:
        consumer.close()


async def test_tansu_keeps_what_it_gets_until_it_is_killed(tansu: TansuServer) -> None:
    with trio.fail_after(30):
        await trio.to_thread.run_sync(make_topic, tansu.bootstrap, 2, "rooms")
        assert await trio.to_thread.run_sync(produce, tansu.bootstrap, b"a", b"b") == [0, 1]
        assert await trio.to_thread.run_sync(consume, tansu.bootstrap, 2) == [b"a", b"b"]
        await tansu.restart()
        assert await trio.to_thread.run_sync(produce, tansu.bootstrap, b"c") == [0]


async def test_noida_keeps_what_it_gets_until_it_is_to_forget(noida: NoidaServer) -> None:
    with trio.fail_after(30):
        assert await trio.to_thread.run_sync(produce, noida.bootstrap, b"a", b"b") == [0, 1]
        noida.end()
        assert not noida.alive
        await noida.restart()
        assert await trio.to_thread.run_sync(consume, noida.bootstrap, 2) == [b"a", b"b"]
        noida.forget()
        await noida.restart()
        assert await trio.to_thread.run_sync(produce, noida.bootstrap, b"c") == [0]


async def test_stopped_broker_takes_connections_and_says_nothing(tansu: TansuServer) -> None:
    with trio.fail_after(30):
        tansu.stop()
        with trio.move_on_after(0.2) as scope:
            await tansu.answers()
        assert scope.cancelled_caught
        tansu.resume()
        assert await tansu.answers()


@pytest.fixture
def mock() -> Iterator[MockCluster]:
    with open_mock_cluster() as cluster:
        cluster.create_topic("rooms", partitions=2, replication=3)
        yield cluster


def test_mock_keeps_records_and_tells_their_bounds(mock: MockCluster) -> None:
    assert produce(mock.bootstrap, b"a", b"b", b"c") == [0, 1, 2]
    assert mock.offsets("rooms", 0) == (0, 3)
    mock.delete_records("rooms", 0, 2)
    assert mock.offsets("rooms", 0) == (2, 3)
    assert mock.offsets("rooms", 1) == (0, 0)


def test_mock_answers_with_the_errors_that_were_pushed(mock: MockCluster) -> None:
    mock.push_errors(ApiKey.PRODUCE, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaException) as info:
        produce(mock.bootstrap, b"a")
    assert info.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    mock.push_errors(ApiKey.PRODUCE, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    mock.clear_errors(ApiKey.PRODUCE)
    assert produce(mock.bootstrap, b"b") == [0]


def test_mock_without_brokers_takes_nothing_and_loses_nothing(mock: MockCluster) -> None:
    assert produce(mock.bootstrap, b"a") == [0]
    mock.set_down()
    with pytest.raises(KafkaException):
        produce(mock.bootstrap, b"lost", timeout=0.5)
    mock.set_up()
    assert produce(mock.bootstrap, b"b") == [1]
    assert consume(mock.bootstrap, 2) == [b"a", b"b"]


def test_leader_of_mock_moves_and_can_be_missing(mock: MockCluster) -> None:
    for broker in mock.brokers:
        mock.set_leader("rooms", 0, broker)
        assert produce(mock.bootstrap, b"%d" % broker) == [broker - 1]
    mock.set_leader("rooms", 0, None)
    with pytest.raises(KafkaException):
        produce(mock.bootstrap, b"lost", timeout=0.5)


def test_mock_says_what_it_cannot_do(mock: MockCluster) -> None:
    with pytest.raises(MockError):
        mock.set_leader("rooms", 99, 1)
    mock.set_topic_error("rooms", KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaException):
        produce(mock.bootstrap, b"a", timeout=0.5)
    mock.set_topic_error("rooms", 0)
    mock.set_round_trip(0.05)
    assert produce(mock.bootstrap, b"a") == [0]
    mock.delete_topic("rooms")
    mock.create_topic("rooms")
    assert produce(mock.bootstrap, b"a") == [0]
