"""A server that has restarted answers while it still reads its data, and refuses nearly everything meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.backplane.history_node import hold
from tests.backplane.processes import until
from tests.backplane.redis.servers import RedisServer, binaries, open_redis_server
from trioroom.backplane.redis import RedisSettings, open_redis
from trioroom.errors import BackplaneUnavailable

pytestmark = pytest.mark.redis

KEYS = 200
SLOWLY = ("--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024")
"""Microseconds for each key, so a second in all, in which the server answers who asks."""


@pytest.fixture(params=binaries().values(), ids=list(binaries()))
async def server(request: pytest.FixtureRequest) -> AsyncIterator[RedisServer]:
    """Has something on disk."""
    binary: Path = request.param
    async with open_redis_server(binary) as server:
        for number in range(KEYS):
            await server.command("SET", f"other:{number}", "x" * 4_096)
        await server.command("SAVE")
        yield server


@asynccontextmanager
async def restarting(server: RedisServer) -> AsyncIterator[None]:
    """The block begins when it answers again, but reads its data; it ends when it has."""

    async def reads_its_data() -> bool:
        return b"loading:1" in await server.command("INFO", "persistence")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.restart, *SLOWLY)
        await until(reads_its_data, "a server that reads its data", 10)
        yield


async def test_publications_wait_until_the_server_has_read_its_data(server: RedisServer) -> None:
    async with hold(open_redis(server.url, settings=RedisSettings(timeout=10))) as node:
        await node.publish(b"before")
        async with restarting(server):
            await node.publish(b"meanwhile")  # neither refused nor lost


async def test_server_that_reads_its_data_cannot_be_used_yet(server: RedisServer) -> None:
    async with restarting(server):
        with pytest.raises(BackplaneUnavailable, match="it still reads its data"):
            async with open_redis(server.url):
                raise AssertionError("it was opened")
