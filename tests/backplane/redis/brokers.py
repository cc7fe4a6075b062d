"""What the conformance suites run against; a test class takes one of these and a suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.backplane.redis.servers import binaries, open_redis_server
from trioroom.backplane.base import Backplane
from trioroom.backplane.redis import open_redis


@asynccontextmanager
async def _open_nodes_at(url: str, count: int) -> AsyncIterator[Sequence[Backplane]]:
    async with AsyncExitStack() as nodes:
        yield [await nodes.enter_async_context(open_redis(url)) for _ in range(count)]


class OneServer:
    """A server of each test's own; the class is parametrized by ``binary``."""

    @pytest.fixture(autouse=True)
    def take_binary(self, binary: str) -> None:
        self.binary = binaries()[binary]

    @asynccontextmanager
    async def open_nodes(self, count: int) -> AsyncIterator[Sequence[Backplane]]:
        async with open_redis_server(self.binary) as server, _open_nodes_at(server.url, count) as nodes:
            yield nodes


class SharedCluster:
    """A cluster of three masters; each test has names of its own there."""

    @pytest.fixture(autouse=True)
    def take_url(self, cluster_url: str, request: pytest.FixtureRequest) -> None:
        self.url = f"{cluster_url}?prefix={request.node.name}"

    @asynccontextmanager
    async def open_nodes(self, count: int) -> AsyncIterator[Sequence[Backplane]]:
        async with _open_nodes_at(self.url, count) as nodes:
            yield nodes
