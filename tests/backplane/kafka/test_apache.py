"""What no other broker of the tests has: a cluster with replicas, compaction, retention, logins. See `apache`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.backplane.kafka.apache import ApacheServer, open_apache, open_apache_cluster
from tests.backplane.observers import Flow, open_flow, open_nodes
from tests.backplane.processes import free_port, until
from trioroom.backplane.base import Lost
from trioroom.backplane.kafka import open_kafka
from trioroom.errors import BackplaneUnavailable
from trioroom.testing.conformance import subscribed
from trioroom.testing.presence_conformance import Watcher

pytestmark = pytest.mark.kafka

ROOMS = ("chat/a", "chat/b", "chat/c", "chat/d")
AGAIN = 30.0  # seconds: three for the session of a broker that has died, and what a busy machine adds
REPLICATED = {"default.replication.factor": "3", "min.insync.replicas": "2", "offsets.topic.replication.factor": "3"}
QUICK_TO_FORGET = {"log.initial.task.delay.ms": "500", "log.retention.check.interval.ms": "500"}
QUICK_TO_COMPACT = {"log.initial.task.delay.ms": "500", "log.cleaner.backoff.ms": "500"}


async def make_topic(server: ApacheServer, name: str, partitions: int, **config: str) -> None:
    """``config`` has underscores for the dots."""
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    topic = NewTopic(name, partitions, config={key.replace("_", "."): value for key, value in config.items()})
    [made] = admin.create_topics([topic]).values()
    await trio.to_thread.run_sync(made.result, 10)


@asynccontextmanager
async def flow_through(servers: list[ApacheServer]) -> AsyncIterator[Flow]:
    """Between two nodes."""
    url = f"kafka://{','.join(server.bootstrap for server in servers)}?partitions=6"
    async with open_nodes(url, url) as nodes, open_flow(nodes, ROOMS, failed_may_be_late=True) as flow:
        yield flow


async def flows_again(flow: Flow) -> None:
    await flow.flows(AGAIN)
    await flow.becomes(True, within=AGAIN)


async def test_brokers_that_go_one_after_the_other_lose_nothing() -> None:
    async with open_apache_cluster(settings=REPLICATED) as servers, flow_through(servers) as flow:
        ended, killed, stopped = servers
        await trio.to_thread.run_sync(ended.end)
        await flows_again(flow)
        assert all(flow.failures(room) == 0 for room in ROOMS), "it has handed over before"
        await ended.restart()
        await trio.sleep(3)  # until it has caught up: else the next one to go would take what only it has
        killed.kill()
        await flows_again(flow)
        await killed.restart()
        await trio.sleep(3)
        stopped.stop()
        await flows_again(flow)
        stopped.resume()
        await flows_again(flow)
    assert flow.noticed() == set()


async def test_leader_that_lacks_the_end_of_the_log_is_told() -> None:
    settings = {"min.insync.replicas": "1", "default.replication.factor": "2", "unclean.leader.election.enable": "true"}
    async with open_apache_cluster(settings=settings) as servers:
        leader, follower, other = servers
        admin = AdminClient({"bootstrap.servers": other.bootstrap})
        for name, partitions in (("trioroom.rooms", 2), ("trioroom.presence", 1)):
            [made] = admin.create_topics(
                [NewTopic(name, partitions, replica_assignment=[[1, 2]] * partitions)]
            ).values()
            await trio.to_thread.run_sync(made.result, 10)
        async with flow_through([other, leader, follower]) as flow:
            follower.kill()
            await flows_again(flow)
            await trio.sleep(5)  # what is written now only the leader has
            leader.kill()
            await follower.restart()
            await flows_again(flow)
        assert flow.noticed() == set(flow.seen)


async def test_outage_that_is_longer_than_the_retention_is_told() -> None:
    async with open_apache(settings=QUICK_TO_FORGET) as server:
        await make_topic(server, "trioroom.rooms", 2, retention_ms="2000", segment_ms="500")
        async with open_kafka(server.url) as node, subscribed(node, "x", 16) as deliveries:
            await node.publish("x", b"before")
            assert await deliveries.receive() == b"before"
            server.end()
            await trio.sleep(2)
            await server.restart()
            with trio.fail_after(AGAIN):
                assert isinstance(await deliveries.receive(), Lost)
                while not node.ready:  # noqa: ASYNC110  # a probe of the outside knows no event
                    await trio.sleep(0.05)
                await node.publish("x", b"after")
                while await deliveries.receive() != b"after":
                    pass


def count_records(bootstrap: str, topic: str) -> tuple[int, int]:
    """How many partition 0 has, and how many it has ever had; blocks."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "count", "enable.partition.eof": True})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        there = 0
        while (message := consumer.poll(5)) is not None and message.error() is None:
            there += 1
        return there, consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=5)[1]
    finally:
        consumer.close()


async def test_node_that_starts_finds_all_who_are_present_in_a_log_that_was_compacted() -> None:
    users = 200
    async with open_apache(settings=QUICK_TO_COMPACT) as server:
        compact = {
            "cleanup_policy": "compact",
            "min_cleanable_dirty_ratio": "0.01",
            "message_timestamp_type": "LogAppendTime",
        }
        await make_topic(server, "trioroom.presence", 1, segment_ms="500", delete_retention_ms="500", **compact)
        url = f"{server.url}?partitions=1&presence_lease=3"
        async with open_kafka(url) as here, here.presence.open("room", Watcher(), 0.02) as seat:
            for turn in range(5):
                for number in range(users):
                    seat.put(f"user {number}", b"%d" % turn)
                await trio.sleep(0.7)
            for number in range(users // 2):
                seat.remove(f"user {number}")

            async def is_compacted() -> bool:
                there, ever = await trio.to_thread.run_sync(count_records, server.bootstrap, "trioroom.presence")
                seat.put("tick", b"%d" % ever)  # the last segment is not compacted
                return there < users and ever > 5 * users

            await until(is_compacted, "the log is compacted")
            async with open_kafka(url) as there:
                watcher = Watcher()
                async with there.presence.open("room", watcher, 0.02):
                    with trio.fail_after(10):
                        await watcher.wait_count(users // 2 + 1)


LOGIN = "org.apache.kafka.common.security"
SPEAKS = {
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SASL_SSL",
    "inter.broker.listener.name": "PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
    **{
        f"listener.name.{listener}.plain.sasl.jaas.config": f"{LOGIN}.plain.PlainLoginModule required user_ann=secret;"
        for listener in ("sasl", "tls")
    },
    **{
        f"listener.name.{listener}.scram-sha-{bits}.sasl.jaas.config": f"{LOGIN}.scram.ScramLoginModule required;"
        for listener in ("sasl", "tls")
        for bits in (256, 512)
    },
}


def tls_settings(directory: Path) -> Mapping[str, str]:
    """With a certificate of an authority that is in ``ca.pem`` there."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1")
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # Java reads no other
    chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
    (directory / "server.pem").write_bytes(key_pem + chain)
    return {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(directory / "server.pem")}


async def is_let_in(url: str) -> None:
    async with open_kafka(url) as node, subscribed(node, "x", 4) as deliveries:
        await node.publish("x", b"x")
        assert await deliveries.receive() == b"x"


async def test_users_log_in_with_and_without_tls(tmp_path: Path) -> None:
    sasl, tls = free_port(), free_port()
    settings = {**SPEAKS, **tls_settings(tmp_path)}
    async with open_apache(settings=settings, listeners={"SASL": sasl, "TLS": tls}) as server:
        for bits in ("256", "512"):
            add = ["--alter", "--add-config", f"SCRAM-SHA-{bits}=[password=secret]", "--entity-type", "users"]
            tool = partial(server.run_tool, "kafka-configs.sh", "--bootstrap-server", server.bootstrap, *add)
            await trio.to_thread.run_sync(tool, "--entity-name", "ann")
        for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
            query = f"?sasl_mechanism={mechanism}"
            await is_let_in(f"kafka://ann:secret@127.0.0.1:{sasl}{query}")
            await is_let_in(f"kafka+tls://ann:secret@127.0.0.1:{tls}{query}&ssl_ca_certs={tmp_path / 'ca.pem'}")
            with pytest.raises(BackplaneUnavailable, match="Authentication failed"):
                await is_let_in(f"kafka://ann:wrong@127.0.0.1:{sasl}{query}")
        with pytest.raises(BackplaneUnavailable, match="certificate"):
            await is_let_in(f"kafka+tls://ann:secret@127.0.0.1:{tls}")
