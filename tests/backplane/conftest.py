"""Real servers as fixtures; tests that take one carry the marker ``redis``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.backplane.brokers import Broker, open_broker, parameters
from tests.backplane.redis.servers import (
    Cluster,
    RedisServer,
    Sentinels,
    binaries,
    open_cluster,
    open_redis_server,
    open_sentinels,
)


@pytest.fixture(params=parameters("redis", "valkey"))
async def redis_server(request: pytest.FixtureRequest) -> AsyncIterator[RedisServer]:
    """A server of each kind."""
    async with open_redis_server(binaries()[request.param]) as server:
        yield server


@pytest.fixture
async def valkey_server() -> AsyncIterator[RedisServer]:
    async with open_redis_server(binaries()["valkey"]) as server:
        yield server


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """Three masters without replicas."""
    async with open_cluster(binaries()["valkey"]) as opened:
        yield opened


@pytest.fixture
async def sentinels() -> AsyncIterator[Sentinels]:
    async with open_sentinels(binaries()["valkey"]) as opened:
        yield opened


@pytest.fixture
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    """Each of those that `tests.backplane.brokers.brokers` names, which goes before the test."""
    async with open_broker(request.param) as opened:
        yield opened
