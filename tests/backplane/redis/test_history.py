"""Histories on real servers: what they survive, what ends an epoch, and how much a page has."""

from __future__ import annotations

import math
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from tests.backplane.history_node import KEPT, ROOM, HistoryNode, hold
from tests.backplane.redis.servers import RedisServer, binaries, open_redis_server
from trioroom._core.history import History, Kept, Page, Position
from trioroom.backplane.base import HistoryStore, Lost
from trioroom.backplane.redis import RedisBackplane, RedisSettings, open_redis
from trioroom.backplane.room_channel import RoomChannel
from trioroom.testing.conformance import make_channel, subscribed

pytestmark = pytest.mark.redis

META, STREAM, CHANNEL = "trioroom:{room:hall/a}:meta", "trioroom:{room:hall/a}:stream", "trioroom:{room:hall/a}"
KEEP_ON_DISK = ("--appendonly", "yes", "--appendfsync", "always")
GUIDE = Path(__file__).parents[3] / "docs/howto/scale-with-redis.md"
ODD_NAMES = ("a{b}c", "{}", "}{", "{x", "a}b", "ä ö", "*?[a]", "a:b", "%s")


def open_node(
    url: str, history: History = KEPT, settings: RedisSettings | None = None
) -> AbstractAsyncContextManager[HistoryNode[RedisBackplane]]:
    return hold(open_redis(url, settings=settings), history)


@asynccontextmanager
async def listening(store: HistoryStore, room: str = ROOM) -> AsyncIterator[RoomChannel]:
    with make_channel(20, math.inf) as channel:
        async with store.subscribe(room, channel):
            yield channel


def payloads(page: Page) -> Sequence[bytes]:
    offsets = [kept.offset for kept in page.kept]
    assert offsets == list(range(offsets[0], offsets[0] + len(offsets))) if offsets else True
    assert {kept.epoch for kept in page.kept} <= {page.position.epoch}
    return [kept.payload for kept in page.kept]


# -- pages -----------------------------------------------------------------------------------------


async def test_pages_go_both_ways_and_begin_where_something_is_held(redis_server: RedisServer) -> None:
    async with open_node(redis_server.url) as node:
        empty = await node.read(None)
        assert (empty.position.offset, empty.previous, empty.start, empty.kept) == (0, None, 0, ())
        last = await node.publish(*[b"%d" % number for number in range(1, 8)])
        assert last == Position(empty.position.epoch, 7)
        assert (await node.read(None)).kept == ()
        page = await node.read(0, 3)
        assert (page.position, page.start, payloads(page)) == (last, 2, [b"3", b"4", b"5"])
        assert payloads(await node.read(5)) == [b"6", b"7"]
        assert payloads(await node.read(7)) == payloads(await node.read(99)) == []
        assert payloads(await node.read_before(99, 2)) == [b"6", b"7"]
        assert payloads(await node.read_before(6, 2)) == [b"4", b"5"]
        assert payloads(await node.read_before(4)) == [b"3"]
        assert payloads(await node.read_before(3)) == payloads(await node.read_before(-5)) == []


async def test_page_is_bounded_in_bytes_but_one_always_fits(redis_server: RedisServer) -> None:
    sizes = (100, 600_000, 400_000, 600_000, 3_000_000, 10)
    async with open_node(redis_server.url, History(10)) as node:
        await node.publish(*[bytes(size) for size in sizes])
        assert [len(payload) for payload in payloads(await node.read(0))] == [100, 600_000, 400_000]
        assert [len(payload) for payload in payloads(await node.read(3))] == [600_000]
        assert [len(payload) for payload in payloads(await node.read(4))] == [3_000_000]
        assert [len(payload) for payload in payloads(await node.read_before(5))] == [400_000, 600_000]
        assert [len(payload) for payload in payloads(await node.read_before(7))] == [10]


async def test_page_of_many_small_ones_is_whole(redis_server: RedisServer) -> None:
    async with open_node(redis_server.url, History(50)) as node:
        await node.publish(*[b"%d" % number for number in range(1, 61)])
        assert payloads(await node.read(12, 37)) == [b"%d" % number for number in range(13, 50)]
        assert payloads(await node.read_before(50, 37)) == [b"%d" % number for number in range(13, 50)]
        assert payloads(await node.read_before(20, 37)) == [b"%d" % number for number in range(11, 20)]


async def test_what_is_older_than_its_ttl_is_not_returned(redis_server: RedisServer) -> None:
    async with open_node(redis_server.url, History(50, ttl=100)) as node:
        last = await node.publish(*[b"%d" % number for number in range(1, 11)])
        await trio.sleep(0.05)
        await node.publish(b"young")
        brief = attrs.evolve(node, history=History(50, ttl=0.05))
        page = await brief.read(0)
        assert (page.start, payloads(page)) == (last.offset, [b"young"])
        assert 0 <= page.kept[0].age < 0.05
        await trio.sleep(0.06)
        page = await brief.read(0)
        assert (page.start, page.position.offset, page.kept) == (11, 11, ())
        assert await redis_server.command("XLEN", STREAM) == 0
        assert (await node.publish(b"next")).offset == 12
        assert payloads(await node.read(0)) == [b"next"]


async def test_how_long_the_server_keeps_what(redis_server: RedisServer) -> None:
    settings = RedisSettings(position_ttl=1000, publication_id_ttl=10)
    async with open_node(redis_server.url, History(5, ttl=100), settings) as node:
        await node.backplane.history.publish(ROOM, b"x", node.history, "id")
        for key, most in ((META, 1_000_000), (STREAM, 100_000), (f"{CHANNEL}:id:id", 10_000)):
            assert most - 5_000 < await redis_server.command("PTTL", key) <= most


async def test_times_may_be_infinite_and_positions_outlive_what_is_held(redis_server: RedisServer) -> None:
    for_ever = RedisSettings(position_ttl=math.inf, publication_id_ttl=math.inf)
    for settings, least in ((for_ever, 1e15), (RedisSettings(position_ttl=0.001), 90_000)):
        async with open_node(redis_server.url, History(5, ttl=100), settings) as node:
            for _ in range(2):
                await node.backplane.history.publish(ROOM, b"x", node.history, "id")
                await node.backplane.publish(ROOM, b"x", "id")
            await node.publish(b"y")
            assert await redis_server.command("PTTL", META) > least
            await redis_server.command("FLUSHALL")


async def test_who_publishes_without_a_history_takes_that_of_the_room(redis_server: RedisServer) -> None:
    async with open_node(redis_server.url, History(2)) as node:
        history = node.backplane.history
        async with listening(history) as receive:
            assert await history.publish(ROOM, b"to nobody", None) is None
            assert await redis_server.command("KEYS", "*") == []
            await node.read(None)
            for number in (1, 2, 3):
                assert (await history.publish(ROOM, b"%d" % number, None) or Position("", 0)).offset == number
            assert payloads(await node.read(0)) == [b"2", b"3"]
            heard = [await receive.receive() for _ in range(3)]
            assert [each.payload for each in heard if isinstance(each, Kept)] == [b"1", b"2", b"3"]


# -- publication ids -------------------------------------------------------------------------------


@pytest.mark.parametrize("keeps", [True, False])
async def test_publication_id_is_good_for_one(redis_server: RedisServer, keeps: bool) -> None:
    results: list[Position | None] = []
    async with open_node(redis_server.url) as node, open_redis(redis_server.url) as other:

        async def publish(backplane: RedisBackplane, room: str, name: str) -> None:
            if keeps:
                results.append(await backplane.history.publish(room, name.encode(), KEPT, name))
            else:
                await backplane.publish(room, name.encode(), name)

        opening = listening(node.backplane.history) if keeps else subscribed(node.backplane, ROOM, 20)
        async with opening as receive:
            async with trio.open_nursery() as nursery:
                for backplane in [node.backplane, other] * 5:
                    nursery.start_soon(publish, backplane, ROOM, "a")
            assert len(set(results)) == keeps
            await publish(other, "another room", "a")
            heard = [await receive.receive()]
            await redis_server.command("CLIENT", "KILL", "TYPE", "normal")
            heard.append(await receive.receive())  # we are back
            await publish(node.backplane, ROOM, "a")
            await publish(node.backplane, ROOM, "b")
            heard.append(await receive.receive())
            assert [each.payload if isinstance(each, Kept) else each for each in heard] == [
                b"a",
                Lost("backplane"),
                b"b",
            ]


async def test_publication_id_may_be_used_again_after_its_time(redis_server: RedisServer) -> None:
    async with open_node(redis_server.url, settings=RedisSettings(publication_id_ttl=0.05)) as node:
        async with subscribed(node.backplane, ROOM, 20) as receive:
            for payload in (b"1", b"2"):
                await node.backplane.publish(ROOM, payload, "id")
                await trio.sleep(0.06)
            assert [await receive.receive() for _ in range(2)] == [b"1", b"2"]


# -- epochs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", binaries().values(), ids=list(binaries()))
async def test_epoch_goes_on_in_another_after_a_restart_with_all_data(binary: Path) -> None:
    async with open_redis_server(binary, *KEEP_ON_DISK) as server, open_node(server.url) as node:
        before = await node.publish(b"1", b"2")
        await server.restart()
        page = await node.read(1, seen=before)
        assert (page.previous, page.position.offset, page.start) == (before, 2, 0)
        assert page.position.epoch != before.epoch
        assert payloads(page) == [b"2"]
        assert await node.publish(b"3") == Position(page.position.epoch, 3)
        assert (await node.read(0, seen=before)).previous == before


async def test_older_data_after_a_restart_end_the_epoch(valkey_server: RedisServer) -> None:
    async with open_node(valkey_server.url) as node:
        await node.publish(b"1", b"2")
        await valkey_server.command("SAVE")
        saved, found = valkey_server._directory / "dump.rdb", valkey_server._directory / "found.rdb"
        shutil.copy(saved, found)
        lost = await node.publish(b"3")
        await valkey_server.restart("--dbfilename", found.name)
        other = await node.publish(b"other 3")  # by one that has not seen the first
        assert (other.offset, other.epoch != lost.epoch) == (3, True)
        assert (await node.read(0, seen=Position(lost.epoch, 2))).position == other
        page = await node.read(0, seen=lost)
        assert (page.previous, page.position.offset, page.start, page.kept) == (None, 3, 3, ())
        assert page.position.epoch not in (lost.epoch, other.epoch)
        assert (await node.read(0, seen=lost)).position == page.position
        assert payloads(await node.read(0)) == []
        await node.publish(b"4")
        assert payloads(await node.read(0)) == [b"4"]


async def test_older_data_of_the_same_incarnation_end_the_epoch_too(redis_server: RedisServer) -> None:
    async with open_node(redis_server.url) as node:
        seen = Position((await node.publish(b"1", b"2")).epoch, 3)
        page = await node.read(0, seen=seen)
        assert (page.previous, page.start, page.kept) == (None, 2, ())
        assert page.position.epoch != seen.epoch


@pytest.mark.parametrize("loss", [("FLUSHALL",), ("DEL", META)])
async def test_another_epoch_begins_when_the_data_are_gone(redis_server: RedisServer, loss: Sequence[str]) -> None:
    async with open_node(redis_server.url) as node:
        before = await node.publish(b"1", b"2")
        await redis_server.command(*loss)  # META alone: it may be evicted
        page = await node.read(0, seen=before)
        assert (page.previous, page.position.offset, page.start, page.kept) == (None, 0, 0, ())
        assert page.position.epoch != before.epoch
        assert (await node.publish(b"3")).offset == 1


async def test_stream_that_was_evicted_is_no_new_epoch(redis_server: RedisServer) -> None:
    async with open_node(redis_server.url) as node:
        before = await node.publish(b"1", b"2")
        await redis_server.command("DEL", STREAM)
        page = await node.read(0, seen=before)
        assert (page.position, page.start, page.kept) == (before, 2, ())
        assert await node.publish(b"3") == Position(before.epoch, 3)
        assert payloads(await node.read(0)) == [b"3"]


async def test_scripts_may_be_forgotten_amid(redis_server: RedisServer) -> None:
    async with open_node(redis_server.url) as node:
        for number in range(1, 4):
            assert (await node.publish(b"x")).offset == number
            await redis_server.command("SCRIPT", "FLUSH")
            assert len((await node.read(0)).kept) == number
