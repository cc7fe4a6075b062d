"""Nodes that die, stop and lose their broker: in the end all agree on who is there, and nobody leaves twice."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from tests.backplane.nats.servers import NatsServer, open_nats_cluster
from tests.backplane.presence_course import ROOM, Course
from tests.backplane.presence_node import open_process
from tests.backplane.processes import until
from trioroom.backplane.nats import NatsSettings, open_nats
from trioroom.backplane.nats.bucket import Bucket, Put
from trioroom.backplane.nats.presence_table import put_of_row
from trioroom.testing.presence_conformance import Watcher

pytestmark = pytest.mark.nats
LEASE = 1.5
SETTINGS = NatsSettings(presence_lease=LEASE, probe_interval=0.2, probe_timeout=1.0, max_backoff=0.1, timeout=2.0)
TOKEN = "room/a"


@asynccontextmanager
async def open_bucket(url: str) -> AsyncIterator[Bucket]:
    """To look at what is there, and to put what no node puts."""
    async with open_nats(url) as node:
        yield node.presence._bucket


async def keys(bucket: Bucket, pattern: str) -> list[str]:
    return [entry.key for entry in await bucket.read(pattern)]


async def told_again(watcher: Watcher) -> None:
    """Until it has been told of all rows once more than when it was opened."""
    await watcher.wait(lambda: watcher.resyncs > 1)


async def test_rows_of_a_killed_process_in_rooms_that_nobody_has_open_are_removed(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}?presence_lease={LEASE}"
    with trio.fail_after(20):
        async with open_bucket(url) as bucket, open_process(url, ROOM, 100, "a") as a:

            async def written() -> bool:
                return len(await keys(bucket, f"room.{TOKEN}.*.*.*")) == 100

            async def removed() -> bool:
                return not await keys(bucket, f"room.{TOKEN}.*.*.*")

            await until(written, "its rows are there")
            a.kill()
            async with open_nats(url) as here, here.presence.open("another room", Watcher(), 0.1):
                await until(removed, "its rows are gone")


async def test_process_that_was_stopped_while_nobody_looked_goes_on_as_it_was(nats_server: NatsServer) -> None:
    url = f"{nats_server.url}?presence_lease={LEASE}"
    with trio.fail_after(20):
        async with open_process(url, ROOM, 10, "a") as a, open_bucket(url) as bucket:

            async def written() -> bool:
                return len(await keys(bucket, f"room.{TOKEN}.*.*.*")) == 10

            async def renewed() -> bool:
                [lease] = await bucket.read("node.*")
                return lease.sequence > before

            await until(written, "its rows are there")
            there = await keys(bucket, f"room.{TOKEN}.*.*.*")
            a.send_signal(signal.SIGSTOP)
            await trio.sleep(2 * LEASE)
            [before] = [entry.sequence for entry in await bucket.read("node.*")]
            a.send_signal(signal.SIGCONT)
            await until(renewed, "its lease")
            assert await keys(bucket, f"room.{TOKEN}.*.*.*") == there


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.thorough)])
async def test_all_agree_in_the_end_whatever_happens(nats_server: NatsServer, seed: int) -> None:
    with trio.fail_after(60):
        async with open_bucket(nats_server.url) as bucket, trio.open_nursery() as nursery:
            course = Course(lambda: open_nats(nats_server.url, settings=SETTINGS), nursery, seed)
            for _ in range(3):
                await course.open_node()
            for step in range(40):
                what = course.random.random()
                if step in (10, 30):
                    nats_server.forget()
                    await nats_server.restart()
                elif step == 20:
                    await nats_server.restart()
                elif what < 0.1:
                    await course.open_node()
                elif what < 0.2:
                    course.close_node()
                elif what < 0.24:
                    await bucket.put(Put(f"room.{TOKEN}.feed.1.user", b"nonsense"))
                elif what < 0.28:
                    await bucket.purge(f"room.{TOKEN}.>")
                elif what < 0.32:
                    await bucket.purge("node.*")
                else:
                    course.change()
                await trio.sleep(course.random.choice([0, 0.01, 0.05, 0.2]))
            course.change()
            with trio.fail_after(10):
                await course.agree()
            nursery.cancel_scope.cancel()


async def test_rows_of_dead_nodes_are_not_shown_to_who_opens_the_room_later(nats_server: NatsServer) -> None:
    watcher = Watcher()
    with trio.fail_after(10):
        async with open_bucket(nats_server.url) as bucket, open_nats(nats_server.url, settings=SETTINGS) as here:
            await bucket.put(put_of_row(TOKEN, "deadbeef.1", "ghost", b"1", 1, 1))
            async with here.presence.open(ROOM, watcher, 0.05):
                assert watcher.count == 0
                assert await keys(bucket, f"room.{TOKEN}.deadbeef.>") == []


async def test_node_without_rows_to_write_asks_little(nats_server: NatsServer) -> None:
    with trio.fail_after(20):
        async with open_nats(nats_server.url, settings=SETTINGS) as here, open_bucket(nats_server.url) as bucket:
            async with here.presence.open(ROOM, Watcher(), 0.05) as seat:
                for number in range(100):
                    seat.put(f"user {number}", b"null")
                await trio.sleep(1)
                before = (await bucket.read("node.*"))[0].sequence
                await trio.sleep(2 * LEASE)
                after = (await bucket.read("node.*"))[0].sequence
                assert 4 <= after - before <= 8, "three renewals in each lease, and nothing else is put"


async def test_rows_outlive_the_loss_of_the_server_that_had_the_table_first() -> None:
    one, two = Watcher(), Watcher()
    with trio.fail_after(60):
        async with open_nats_cluster() as cluster, AsyncExitStack() as stack:
            options = "?replicas=3"
            async with open_nats(f"{cluster.url}{options}") as node, node.presence.open(ROOM, Watcher(), 0.05):
                leader = await cluster.leader_of("KV_trioroom_presence")
            assert leader is not None
            urls = [f"{server.url}{options}" for server in cluster.servers if server is not leader]
            here, there = [await stack.enter_async_context(open_nats(url)) for url in urls]
            first = await stack.enter_async_context(here.presence.open(ROOM, one, 0.05))
            second = await stack.enter_async_context(there.presence.open(ROOM, two, 0.05))
            first.put("ann", b"1")
            second.put("bob", b"2")
            await one.wait_rows(("bob", b"2"))
            await two.wait_rows(("ann", b"1"))
            leader.kill()
            first.put("ann", b"3")
            second.remove("bob")
            for watcher in one, two:  # what the leader had not told of yet nobody would have
                await told_again(watcher)
            await two.wait_rows(("ann", b"3"))
            await one.wait_rows()
            assert one.gone == two.gone == []
