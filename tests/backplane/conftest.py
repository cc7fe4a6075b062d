"""Real servers as fixtures; tests that take one carry the marker ``redis``."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from tests.backplane.brokers import NO_REDIS, Broker, open_broker
from tests.backplane.redis.servers import (
    Cluster,
    RedisServer,
    Sentinels,
    binaries,
    open_cluster,
    open_redis_server,
    open_sentinels,
)


def servers() -> list[object]:
    """The names of all servers to test with; one that is missing is skipped, but not in CI, where nothing is."""
    there: list[object] = list(binaries())
    if "redis" in there or os.environ.get("CI"):
        return there
    return [pytest.param("redis", marks=pytest.mark.skip(reason=NO_REDIS)), *there]


@pytest.fixture(params=servers())
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
