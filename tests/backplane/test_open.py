"""What ``--backplane`` takes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.backplane.kafka.brokers import new_topic
from tests.backplane.kafka.mock_cluster import open_mock_cluster
from tests.backplane.nats.servers import open_nats_server
from tests.backplane.redis.servers import RedisServer
from trioroom.backplane.kafka import KafkaBackplane
from trioroom.backplane.memory import MemoryBackplane
from trioroom.backplane.nats import NatsBackplane
from trioroom.backplane.open import open_backplane
from trioroom.backplane.redis import RedisBackplane


async def test_memory_needs_nothing() -> None:
    async with open_backplane("memory") as backplane:
        assert isinstance(backplane, MemoryBackplane)


@pytest.mark.redis
async def test_url_of_redis_opens_a_link(valkey_server: RedisServer) -> None:
    for url in (valkey_server.url, valkey_server.unix_url):
        async with open_backplane(url) as backplane:
            assert isinstance(backplane, RedisBackplane)
            assert backplane.ready


@pytest.mark.nats
async def test_url_of_nats_opens_a_link() -> None:
    async with open_nats_server() as server, open_backplane(server.url) as backplane:
        assert isinstance(backplane, NatsBackplane)
        assert backplane.ready


@pytest.mark.kafka
async def test_url_of_kafka_opens_a_link() -> None:
    with open_mock_cluster() as cluster:
        async with open_backplane(f"{new_topic(cluster)}&connect_timeout=10") as backplane:
            assert isinstance(backplane, KafkaBackplane)
            assert backplane.ready


def test_server_without_a_broker_does_not_import_what_brokers_need() -> None:
    source = """if True:
        import sys, trio, trioroom.cli
        async def main():
            async with trioroom.open_backplane("memory"):
                loaded = {name.partition(".")[0] for name in sys.modules}
                print(*sorted(loaded & {"redis", "hiredis", "nkeys", "confluent_kafka"}))
        trio.run(main)
    """
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("\n", "")


@pytest.mark.parametrize(
    ("url", "named"),
    [("pulsar://host", "'pulsar'"), ("", "'that'"), ("Memory", "'Memory'"), ("memory://", "'memory'")],
)
async def test_other_kinds_are_refused_with_those_there_are(url: str, named: str) -> None:
    expected = f"no backplane is called {named}; write memory, or one of redis, .* nats, .* kafka.*:// and where"
    with pytest.raises(ValueError, match=expected):
        async with open_backplane(url):
            pytest.fail("there is none")


@pytest.mark.parametrize(
    "url",
    ["me:hunter2@host:6379", "hunter2@host", "redis:me:hunter2@host", "nats:me:hunter2@host", "kafka:me:hunter2@host"],
)
async def test_password_of_what_is_no_url_is_not_named(url: str) -> None:
    with pytest.raises(ValueError, match="no backplane is called 'that'") as refused:
        async with open_backplane(url):
            pytest.fail("there is none")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://host/x", "is no number of a database"),
        ("rediss+sentinel://host", "needs the master's name"),
        ("nats://host/x", "a NATS URL has no path"),
        ("nats+sentinel://host", "no scheme of a NATS URL"),
        ("nats+tls://host?colour=red", "option 'colour' is not known"),
        ("kafka://host/x", "a Kafka URL has no path"),
        ("kafka+sentinel://host", "no scheme of a Kafka URL"),
        ("kafka+tls://host?colour=red", "option 'colour' is not known"),
    ],
)
async def test_url_is_read_before_anything_is_tried(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        async with open_backplane(url):
            pytest.fail("there is none")
