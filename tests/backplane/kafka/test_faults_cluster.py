"""What happens to a cluster of three: leaders move, brokers go, requests are refused. On librdkafka's mock cluster."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from confluent_kafka import KafkaError

from tests.backplane.kafka.brokers import PROMPT
from tests.backplane.kafka.mock_cluster import ApiKey, MockCluster, open_mock_cluster
from tests.backplane.observers import Flow, open_flow, open_nodes
from trioroom.backplane.base import Lost
from trioroom.backplane.kafka import open_kafka
from trioroom.errors import BackplaneError, BackplaneUnavailable
from trioroom.testing.conformance import subscribed

pytestmark = pytest.mark.kafka

TOPIC = "trioroom.rooms"
ROOMS = ("chat/a", "chat/b", "chat/c", "chat/d")
AGAIN = 4.0  # seconds


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    """The topic's partition n is led by broker n + 1."""
    with open_mock_cluster() as opened:
        opened.create_topic(TOPIC, 3, 3)
        opened.create_topic("trioroom.presence", 1, 3)
        for partition in range(3):
            opened.set_leader(TOPIC, partition, partition + 1)
        yield opened


@asynccontextmanager
async def flow_through(cluster: MockCluster) -> AsyncIterator[Flow]:
    """Between two nodes; in the end nobody was told of any loss."""
    urls = [f"{cluster.url}?{PROMPT}"] * 2
    async with open_nodes(*urls) as nodes, open_flow(nodes, ROOMS, failed_may_be_late=True) as flow:
        yield flow
        await flow.flows(2 * AGAIN)
        await flow.becomes(True, within=AGAIN)
    assert flow.noticed() == set()


async def test_leaders_that_move_cost_nothing(cluster: MockCluster) -> None:
    async with flow_through(cluster) as flow:
        for shift in (1, 2):
            for partition in range(3):
                cluster.set_leader(TOPIC, partition, (partition + shift) % 3 + 1)
            await flow.flows(AGAIN)
        assert all(flow.failures(room) == 0 for room in ROOMS)


async def test_broker_that_goes_takes_readiness_with_it_until_another_one_leads(cluster: MockCluster) -> None:
    async with flow_through(cluster) as flow:
        cluster.set_down(2)
        await flow.becomes(False, within=3.0)
        cluster.set_leader(TOPIC, 1, 3)
        await flow.flows(AGAIN)
        await flow.becomes(True, within=AGAIN)
        cluster.set_up(2)


async def test_all_brokers_away_for_a_while_cost_nothing(cluster: MockCluster) -> None:
    async with flow_through(cluster) as flow:
        cluster.set_down()
        await flow.becomes(False, within=0.5)
        await trio.sleep(1)
        cluster.set_up()


@pytest.mark.parametrize(
    "error",
    [
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    ],
)
async def test_writing_is_tried_again_and_nothing_is_lost_in_silence(error: int, cluster: MockCluster) -> None:
    # One after the other, without probes, and not all errors there are: sequence numbers are not the mock cluster's
    # strength. A second try that comes when a later record has been written it takes for a duplicate of what it has not
    # written, as it does after NOT_LEADER_FOR_PARTITION; after an answer that was lost it writes it twice.
    url = f"{cluster.url}?{PROMPT}&probe_interval=300"
    payloads = [b"%d" % number for number in range(20)]
    async with open_nodes(url, url) as (here, there), subscribed(there, ROOMS[0], 64) as deliveries:
        for number, payload in enumerate(payloads):
            cluster.push_errors(ApiKey.PRODUCE, *[error] * (number % 3))  # some of them may be answers to presence
            await here.publish(ROOMS[0], payload)
        with trio.fail_after(AGAIN):
            assert [await deliveries.receive() for _ in payloads] == payloads
        assert len(deliveries) == 0


@pytest.mark.parametrize(
    "error",
    [
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.UNKNOWN,
        KafkaError._TRANSPORT,
    ],
)
async def test_reading_goes_on_where_it_was(error: int, cluster: MockCluster) -> None:
    async with flow_through(cluster) as flow:
        cluster.push_errors(ApiKey.FETCH, *[error, 0, error, error] * 5)
        await flow.flows(AGAIN)


async def test_slow_brokers_are_waited_for(cluster: MockCluster) -> None:
    async with flow_through(cluster) as flow:
        cluster.set_round_trip(0.1)
        await flow.flows(AGAIN)
        assert all(map(flow.always_ready, (0, 1)))
        cluster.set_round_trip(0.0)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, "raise max.message.bytes of topic trioroom.rooms, or lower"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "allow this user Write on topic trioroom.rooms"),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, "allow this user Write on topic trioroom.rooms"),
        (KafkaError.INVALID_RECORD, "the broker refused a publication"),
    ],
)
async def test_what_is_refused_for_good_says_what_to_do(error: int, advice: str, cluster: MockCluster) -> None:
    async with open_nodes(f"{cluster.url}?{PROMPT}") as (node,):
        with trio.fail_after(AGAIN):
            refusal = None
            while refusal is None:
                cluster.push_errors(ApiKey.PRODUCE, error)  # which may answer a mark, or presence
                try:
                    await node.publish("x", b"refused")
                except BackplaneUnavailable:
                    pass  # it was a mark
                except BackplaneError as exc:
                    refusal = str(exc)
        assert advice in refusal
        cluster.clear_errors(ApiKey.PRODUCE)
        with trio.fail_after(AGAIN):
            while True:  # a client that keeps to it is replaced
                try:
                    await node.publish("x", b"accepted")
                    break
                except BackplaneError:
                    await trio.sleep(0.05)


async def test_no_rights_on_groups_are_needed(cluster: MockCluster) -> None:
    cluster.push_errors(ApiKey.FIND_COORDINATOR, *[KafkaError.GROUP_AUTHORIZATION_FAILED] * 100)
    async with open_nodes(f"{cluster.url}?{PROMPT}") as (node,), subscribed(node, "x", 4) as deliveries:
        await node.publish("x", b"x")
        with trio.fail_after(AGAIN):
            assert await deliveries.receive() == b"x"


async def test_reading_that_is_not_allowed_says_what_to_do(cluster: MockCluster) -> None:
    cluster.push_errors(ApiKey.FIND_COORDINATOR, *[KafkaError.GROUP_AUTHORIZATION_FAILED] * 100)
    cluster.push_errors(ApiKey.FETCH, *[KafkaError.TOPIC_AUTHORIZATION_FAILED] * 100)
    with trio.fail_after(AGAIN), pytest.raises(BackplaneUnavailable, match=r"allow this user Read on it"):
        async with open_nodes(f"{cluster.url}?{PROMPT}"):
            pass


async def test_records_that_are_gone_before_they_were_read_are_told(
    cluster: MockCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "trioroom.backplane")
    async with open_nodes(*[f"{cluster.url}?{PROMPT}"] * 2) as (here, there):
        async with subscribed(here, ROOMS[0], 16) as deliveries:
            await there.publish(ROOMS[0], b"before")
            assert await deliveries.receive() == b"before"
            with trio.fail_after(5 * AGAIN):
                told = None
                while told is None:  # an error may hit another partition, the other node, or presence
                    cluster.push_errors(ApiKey.FETCH, KafkaError.OFFSET_OUT_OF_RANGE)
                    with trio.move_on_after(0.05):
                        told = await deliveries.receive()
                assert isinstance(told, Lost)
                cluster.clear_errors(ApiKey.FETCH)
                while not here.ready:  # noqa: ASYNC110  # the log has been read again
                    await trio.sleep(0.02)
                await there.publish(ROOMS[0], b"after")
                seen = [await deliveries.receive()]
                while seen[-1] != b"after":
                    seen.append(await deliveries.receive())
            assert b"before" not in seen, "the log is where it was, and what it has was delivered"
    assert any("does not go on where we were" in message for message in caplog.messages)


async def test_what_all_partitions_have_lost_is_mended_at_once(
    cluster: MockCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """As after an outage that was longer than the topic keeps records."""
    caplog.set_level(logging.WARNING, "trioroom.backplane")
    async with open_kafka(f"{cluster.url}?{PROMPT}") as node:
        cluster.set_down()
        with trio.fail_after(AGAIN):
            while node.ready:  # noqa: ASYNC110  # a probe of the outside knows no event
                await trio.sleep(0.02)
        for partition, place in node._log._link.reader.places.items():
            cluster.delete_records(TOPIC, partition, place)
        cluster.set_up()
        with trio.fail_after(2 * AGAIN):
            while not node.ready:  # noqa: ASYNC110
                await trio.sleep(0.02)
    lost = [message for message in caplog.messages if "not go on where we were" in message]
    assert len(lost) == 1
    assert "partitions 0, 1, 2 do not go on where we were" in lost[0]


async def test_what_timed_out_has_nothing_come_twice(cluster: MockCluster) -> None:
    """librdkafka numbers anew what is left then, and would send again what the broker has by its old number."""
    url = f"{cluster.url}?{PROMPT}&timeout=3&probe_interval=300&probe_timeout=10"
    async with open_nodes(url, url) as (here, there), subscribed(there, ROOMS[0], 256) as deliveries:

        async def publish(number: int) -> None:
            with suppress(BackplaneUnavailable):
                await here.publish(ROOMS[0], b"%d" % number)

        cluster.set_round_trip(3.0)
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(publish, number)
                await trio.sleep(0.1)
            cluster.set_down()  # what has been written is not answered
            await trio.sleep(1.2)  # until the first have timed out, and the last have not
            cluster.set_round_trip(0.0)
            cluster.set_up()
        seen: list[bytes] = []
        with trio.fail_after(3 * AGAIN):
            while b"end" not in seen:
                with suppress(BackplaneUnavailable):
                    await here.publish(ROOMS[0], b"end")
                await trio.sleep(0.2)
                while len(deliveries):
                    delivery = deliveries.receive_nowait()
                    assert isinstance(delivery, bytes)
                    seen.append(delivery)
        numbers = [each for each in seen if each != b"end"]
        assert len(numbers) == len(set(numbers))


async def test_writer_with_a_fatal_error_is_replaced(cluster: MockCluster) -> None:
    """librdkafka has no order any more that it could keep, and raises that where it is polled."""
    with trio.fail_after(30):
        async with open_nodes(f"{cluster.url}?{PROMPT}") as [node]:
            await node.publish("room", b"1")
            with suppress(BackplaneUnavailable):
                for _ in range(10):  # as the error may hit presence
                    cluster.push_errors(ApiKey.PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
                    await node.publish("room", b"2")
            cluster.clear_errors(ApiKey.PRODUCE)
            await node.publish("room", b"3")
