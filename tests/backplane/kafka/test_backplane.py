"""What the contract leaves open: ids across nodes and starts, bounds, and what is left behind."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio

from tests.backplane.kafka.apache import LastingServer
from tests.backplane.kafka.brokers import PROMPT, new_topic
from tests.backplane.kafka.mock_cluster import MockCluster
from tests.backplane.kafka.servers import KafkaServer
from tests.backplane.observers import open_nodes
from trioroom.backplane.base import Counting
from trioroom.backplane.kafka import open_kafka
from trioroom.errors import BackplaneError, BackplaneUnavailable
from trioroom.testing.cancellation import cancel_at_step
from trioroom.testing.conformance import END, read_to_end, subscribed

pytestmark = pytest.mark.kafka


async def test_publication_id_counts_once_for_all_nodes(broker: KafkaServer | MockCluster) -> None:
    url = new_topic(broker)
    async with open_nodes(url, url) as (here, there), subscribed(here, "x", 16) as deliveries:
        for node, payload in ((here, b"first"), (there, b"second"), (here, b"third")):
            await node.publish("x", payload, "id")
            await node.publish("y", payload, "id")
        await there.publish("x", b"another", "other")
        await there.publish("x", END)
        assert await read_to_end(deliveries) == [b"first", b"another"]


async def check_reading_back_of_ids(broker: KafkaServer) -> None:
    url = new_topic(broker)
    async with open_kafka(url) as node:
        await node.publish("x", b"first", "id")
    async with open_kafka(url) as node, subscribed(node, "x", 16) as deliveries:
        await node.publish("x", b"second", "id")
        await node.publish("x", b"another", "other")
        await node.publish("x", END)
        assert await read_to_end(deliveries) == [b"another"]


async def test_node_that_starts_reads_back_which_ids_were_used(server: KafkaServer) -> None:
    await check_reading_back_of_ids(server)  # the mock cluster cannot be asked for an offset by time


async def test_node_that_starts_reads_back_which_ids_were_used_where_the_log_lasts(lasting: LastingServer) -> None:
    await check_reading_back_of_ids(lasting)


async def test_publication_id_is_forgotten_after_its_time(server: KafkaServer) -> None:
    async with open_nodes(f"{server.url}?{PROMPT}&publication_id_ttl=0.3") as (node,):
        async with subscribed(node, "x", 16) as deliveries:
            await node.publish("x", b"first", "id")
            await node.publish("x", b"second", "id")
            await trio.sleep(0.4)
            await node.publish("x", b"third", "id")
            await node.publish("x", END)
            assert await read_to_end(deliveries) == [b"first", b"third"]


async def test_publication_that_is_too_large(lasting: LastingServer) -> None:
    async with open_nodes(f"{lasting.url}?max_publication_bytes=10000") as (node,):
        with pytest.raises(ValueError, match="exceeds max_publication_bytes=10000"):
            await node.publish("x", b"x" * 10_001)
    async with open_nodes(f"{lasting.url}?max_publication_bytes=10000000") as (node,):
        with pytest.raises(BackplaneError, match=r"raise max.message.bytes of topic trioroom\.rooms") as raised:
            await node.publish("x", b"x" * 9_000_000)
        assert not isinstance(raised.value, BackplaneUnavailable)
        await node.publish("x", b"small")


@pytest.mark.parametrize("bound", ["max_queued_publications=8", "max_queued_bytes=1000"])
async def test_publishers_wait_while_too_much_is_unconfirmed(bound: str, server: KafkaServer) -> None:
    async with open_kafka(f"{server.url}?{PROMPT}&{bound}") as node, trio.open_nursery() as nursery:
        done = 0

        async def publish() -> None:
            nonlocal done
            await node.publish("x", b"x")
            done += 1

        server.stop()
        for _ in range(50):
            nursery.start_soon(publish)
        await trio.sleep(0.1)
        waiting = node._log._link.producer.queued
        assert 1 < waiting <= 8 + 8  # and marks
        server.resume()
        with trio.fail_after(8):
            while done < 50:  # noqa: ASYNC110  # publishers in any order
                await trio.sleep(0.01)


async def test_link_counts_what_it_does(server: KafkaServer) -> None:
    async with open_nodes(f"{server.url}?{PROMPT}") as (node,):
        for _ in range(10):
            await node.publish("x", b"x")
        assert isinstance(node, Counting)
        assert node.meters.outages == 0
        assert node.meters.publishing.count >= 10
        assert node.meters.batches.count >= 10
        assert node.meters.round_trips.count >= 1


async def test_opening_can_be_cancelled_at_any_moment(server: KafkaServer) -> None:
    for step in (*range(0, 70, 7), *range(70, 2_000, 45)):  # on a busy machine threads come in smaller portions
        with cancel_at_step(step) as scope:
            async with open_kafka(f"{server.url}?{PROMPT}&partitions=1") as node:
                await node.publish("x", b"x")
        if not scope.cancelled_caught:
            break
    else:
        raise AssertionError("never came to its end")


async def test_nothing_is_left_behind(server: KafkaServer) -> None:
    async def open_once() -> None:
        async with open_nodes(f"{server.url}?{PROMPT}&partitions=2") as (node,), subscribed(node, "x", 4) as deliveries:
            await node.publish("x", b"x")
            await deliveries.receive()

    await open_once()
    before = (threads(), files())
    for _ in range(4):  # twice as many as may be kept
        await open_once()
    with trio.fail_after(5):
        while threads() > before[0] + 2 or files() > before[1] + 2:  # noqa: ASYNC110  # Trio keeps some for a moment
            await trio.sleep(0.05)


def threads() -> int:
    return len(os.listdir("/proc/self/task")) if sys.platform == "linux" else threading.active_count()


def files() -> int:
    return len(os.listdir("/dev/fd"))


async def test_state_is_told_in_the_log_and_nothing_of_the_client_on_stderr(
    server: KafkaServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "trioroom.backplane")
    async with open_nodes(f"{server.url}?{PROMPT}"):
        assert sorted(caplog.messages) == [
            f"kafka: topic trioroom.presence at {server.bootstrap} is up, 1 partitions",
            f"kafka: topic trioroom.rooms at {server.bootstrap} is up, 8 partitions",
        ]
        server.kill()
        await trio.sleep(0.5)
        assert any(message.startswith("kafka: no broker can be reached") for message in caplog.messages[2:])
    assert capfd.readouterr().err == ""


def test_missing_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "confluent_kafka.py").write_text("raise ImportError('not there')")
    program = "import trio; from trioroom.backplane.open import open_backplane\n" + (
        "async def main():\n    async with open_backplane('kafka://h'): pass\ntrio.run(main)"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    ended = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": path}, capture_output=True, text=True)
    assert "ImportError: the Kafka backplane needs confluent-kafka; pip install 'trioroom[kafka]'" in ended.stderr
