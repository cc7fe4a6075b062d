"""A script runs by its hash, also on a server that has never seen it or has forgotten it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import pytest
from redis.exceptions import ResponseError

from tests.backplane.redis.servers import RedisServer
from trioroom.backplane.redis import open_redis
from trioroom.backplane.redis.publisher import Command
from trioroom.backplane.redis.scripts import Script
from trioroom.backplane.redis.topology import Topology

ECHO = Script("return {KEYS[1], KEYS[2], ARGV[1], ARGV[2]}")
BROKEN = Script("return redis.call('INCR', KEYS[1])")


@attrs.define
class Counting:
    """The topology behind, and the words that went to it."""

    topology: Topology
    words: list[object] = attrs.field(factory=list)

    async def call(self, key: bytes, command: Command) -> object:
        self.words.append(command(b"")[0])
        return await self.topology.call(key, command)


@asynccontextmanager
async def open_counting(server: RedisServer) -> AsyncIterator[Counting]:
    async with open_redis(server.url) as backplane:
        yield Counting(backplane._topology)


def args(incarnation: bytes) -> Sequence[bytes | int | str]:
    return [incarnation, 7]


@pytest.mark.redis
async def test_source_travels_only_to_a_server_that_does_not_have_it(redis_server: RedisServer) -> None:
    info = (await redis_server.command("INFO", "server")).decode()
    run_id = next(line for line in info.splitlines() if line.startswith("run_id:")).partition(":")[2].encode()
    async with open_counting(redis_server) as topology:
        for _ in range(2):
            assert await ECHO.run(topology, [b"a", b"b"], args) == [b"a", b"b", run_id, b"7"]  # type: ignore[arg-type]
        assert topology.words == ["EVALSHA", "EVAL", "EVALSHA"]
        await redis_server.command("SCRIPT", "FLUSH")
        assert await ECHO.run(topology, [b"a", b"b"], args) == [b"a", b"b", run_id, b"7"]  # type: ignore[arg-type]
        assert topology.words[3:] == ["EVALSHA", "EVAL"]


@pytest.mark.redis
async def test_error_in_a_script_is_raised(redis_server: RedisServer) -> None:
    await redis_server.command("SET", "a", "no number")
    async with open_counting(redis_server) as topology:
        for _ in range(2):
            with pytest.raises(ResponseError, match="not an integer"):
                await BROKEN.run(topology, [b"a"], args)  # type: ignore[arg-type]
        assert topology.words == ["EVALSHA", "EVAL", "EVALSHA"]
