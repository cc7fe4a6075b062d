"""What is no change on the channel of a table, and no row in it: presence goes on, and asks little more for it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.backplane.redis.servers import RedisServer
from trioroom.backplane.base import PresenceSeat
from trioroom.backplane.leases import RETRY_INTERVAL
from trioroom.backplane.redis import open_redis
from trioroom.testing.presence_conformance import Watcher

pytestmark = pytest.mark.redis
ROOM = "room/a"
TABLE = "trioroom:{room:room/a}:presence"
LEASES = "trioroom:{nodes}"
DAMAGED = {
    "digits without end": b"9" * 5_000 + b":+",
    "digits that are not ASCII": "²:+".encode(),
    "no number": b"one:-seat",
    "negative": b"-1:-seat",
    "no kind": b"%d:",
    "unknown kind": b"%d:?seat",
    "no MessagePack": b"%d:+nonsense",
    "nested deeply": b"%d:+\x94\xa1a\x80\x90" + b"\x91" * 100_000 + b"\xc0",
    "another shape": b"%d:+\x91\xa1a",
    "no UTF-8": b"%d:+\x93\xa1\xff\x80\x90",
    "gone, no UTF-8": b"%d:-\xff",
    "empty": b"",
}


@asynccontextmanager
async def open_pair(server: RedisServer) -> AsyncIterator[tuple[PresenceSeat, Watcher]]:
    """A seat of one node, and what another one is told of it."""
    watcher = Watcher()
    with trio.fail_after(20):
        async with (
            open_redis(server.url) as here,
            open_redis(server.url) as there,
            here.presence.open(ROOM, Watcher(), 0.02) as ours,
            there.presence.open(ROOM, watcher, 0.02),
        ):
            ours.put("ann", b"1")
            await watcher.wait_rows(("ann", b"1"))
            yield ours, watcher


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", DAMAGED)
async def test_damaged_message_is_followed_by_a_read(
    redis_server: RedisServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pair(redis_server) as (ours, watcher):
        version = int(await redis_server.command("HGET", TABLE, "v"))
        resyncs = watcher.resyncs
        await redis_server.command("PUBLISH", TABLE, DAMAGED[name].replace(b"%d", b"%d" % (version + 1)))
        await watcher.wait(lambda: watcher.resyncs > resyncs)
        ours.put("bob", b"2")
        await watcher.wait_rows(("ann", b"1"), ("bob", b"2"))
        assert len(warnings(caplog)) == 2, "one for each node"


async def test_flood_of_damaged_messages_is_no_flood_of_reads_and_none_of_the_log(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pair(redis_server) as (ours, watcher):
        resyncs, began = watcher.resyncs, trio.current_time()
        for number in range(200):
            await redis_server.command("PUBLISH", TABLE, b"noise")
            await trio.sleep(0.005)
            ours.put("ann", b"%d" % number)
        await watcher.wait_rows(("ann", b"199"))
        most = 2 + (trio.current_time() - began) / RETRY_INTERVAL
        assert watcher.resyncs - resyncs <= most
        assert len(warnings(caplog)) == 2


@pytest.mark.parametrize("version", ["none", "9" * 5_000, "9223372036854775807", "1" * 17, "-3", "1.5", ""])
async def test_damaged_version_begins_anew(redis_server: RedisServer, version: str) -> None:
    async with open_pair(redis_server) as (ours, watcher):
        await redis_server.command("HSET", TABLE, "v", version)
        ours.put("bob", b"2")
        await watcher.wait_rows(("ann", b"1"), ("bob", b"2"))
        ours.remove("bob")
        await watcher.wait_rows(("ann", b"1"))
        assert int(await redis_server.command("HGET", TABLE, "v")) in range(10)


async def test_room_with_a_damaged_table_can_be_opened(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    for field in ("v", "/", "a", "a/", "a.1", "a.1/ann", b"\xff\xff/\xff", b"\xff\xff.1/\xff", "a.1/" + "a" * 1_000):
        await redis_server.command("HSET", TABLE, field, b"\xff")
    await redis_server.command("ZADD", LEASES, "inf", b"\xff", "5", "past", "-inf", "long past")
    async with open_pair(redis_server) as (_, watcher):
        assert watcher.rows() == [("ann", b"1")]
        async with open_redis(redis_server.url) as late, late.presence.open(ROOM, Watcher(), 0.02):
            assert await redis_server.command("ZSCORE", LEASES, "past") is None
