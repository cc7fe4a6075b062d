"""Nodes that die, stop and lose their broker: in the end all agree on who is there, and nobody leaves twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import trio

from tests.backplane.presence_course import ROOM, Course
from tests.backplane.redis.servers import RedisServer, binaries, open_redis_server
from trioroom.backplane.redis import RedisSettings, open_redis
from trioroom.testing.presence_conformance import Watcher

pytestmark = pytest.mark.redis
LEASE = 1.5
SETTINGS = RedisSettings(presence_lease=LEASE, probe_interval=0.2, probe_timeout=1.0, max_backoff=0.1, timeout=2.0)


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with open_redis_server(binaries()["valkey"]) as opened:
        yield opened


async def test_flushed_table_is_written_again_by_those_who_are_there(server: RedisServer) -> None:
    one, two = Watcher(), Watcher()
    with trio.fail_after(20):
        async with AsyncExitStack() as stack:
            here = await stack.enter_async_context(open_redis(server.url, settings=SETTINGS))
            there = await stack.enter_async_context(open_redis(server.url, settings=SETTINGS))
            first = await stack.enter_async_context(here.presence.open(ROOM, one, 0.05))
            second = await stack.enter_async_context(there.presence.open(ROOM, two, 0.05))
            first.put("ann", b"1")
            second.put("bob", b"2")
            await one.wait_count(1)
            await two.wait_count(1)
            await server.command("FLUSHALL")
            late = Watcher()
            async with here.presence.open(ROOM, late, 0.05):
                await late.wait_count(2)
            assert one.gone == two.gone == [] or (one.count, two.count) == (1, 1)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.thorough)])
async def test_all_agree_in_the_end_whatever_happens(server: RedisServer, seed: int) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            course = Course(lambda: open_redis(server.url, settings=SETTINGS), nursery, seed)
            for _ in range(3):
                await course.open_node()
            for step in range(40):
                what = course.random.random()
                if what < 0.1:
                    await course.open_node()
                elif what < 0.2:
                    course.close_node()
                elif what < 0.23:
                    await server.command("FLUSHALL")
                elif step == 20:
                    await server.restart()
                elif what < 0.28:
                    await server.command("SCRIPT", "FLUSH")
                elif what < 0.33:
                    await server.command("CLIENT", "KILL", "TYPE", "pubsub")
                elif what < 0.36:
                    await server.command("PUBLISH", "trioroom:{room:room/a}:presence", "7:nonsense")
                else:
                    course.change()
                await trio.sleep(course.random.choice([0, 0.01, 0.05, 0.2]))
            course.change()
            with trio.fail_after(10):
                await course.agree()
            nursery.cancel_scope.cancel()


async def test_rows_of_dead_nodes_are_not_shown_to_who_opens_the_room_later(server: RedisServer) -> None:
    await server.command("HSET", "trioroom:{room:room/a}:presence", "deadbeef.1/ghost", "1", "v", "5")
    watcher = Watcher()
    with trio.fail_after(10):
        async with open_redis(server.url, settings=SETTINGS) as here, here.presence.open(ROOM, watcher, 0.05):
            assert watcher.count == 0
            assert await server.command("HEXISTS", "trioroom:{room:room/a}:presence", "deadbeef.1/ghost") == 0


async def test_node_without_rows_to_write_costs_few_commands(server: RedisServer) -> None:
    with trio.fail_after(20):
        async with open_redis(server.url, settings=SETTINGS) as here:
            async with here.presence.open(ROOM, Watcher(), 0.05) as seat:
                for number in range(100):
                    seat.put(f"user {number}", b"null")
                await trio.sleep(0.5)
                await server.command("CONFIG", "RESETSTAT")
                await trio.sleep(2 * LEASE)
                statistics = (await server.command("INFO", "commandstats")).decode()
                [calls] = [line for line in statistics.splitlines() if line.startswith("cmdstat_evalsha:")]
                assert int(calls.partition("calls=")[2].partition(",")[0]) <= 8, "three in each lease"


async def test_table_that_is_lost_alone_is_written_again_at_the_next_change(server: RedisServer) -> None:
    watchers = Watcher(), Watcher()
    with trio.fail_after(20):
        async with AsyncExitStack() as stack:
            seats = []
            for watcher in watchers:
                node = await stack.enter_async_context(open_redis(server.url, settings=SETTINGS))
                seats.append(await stack.enter_async_context(node.presence.open(ROOM, watcher, 0.05)))
            for number, (seat, other) in enumerate(zip(seats, reversed(watchers), strict=True)):
                seat.put(f"user {number}", b"1")
                await other.wait_count(1)
            await server.command("DEL", "trioroom:{room:room/a}:presence")
            seats[0].put("late", b"1")
            late = Watcher()
            async with node.presence.open(ROOM, late, 0.05):
                await late.wait_rows(("late", b"1"), ("user 0", b"1"), ("user 1", b"1"))
            assert watchers[0].gone == watchers[1].gone == []
