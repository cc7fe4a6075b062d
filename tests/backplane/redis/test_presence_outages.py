"""Rooms that are closed while their node cannot reach the broker: nobody stays behind in the table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import pytest
import trio

from tests.backplane.processes import until
from tests.backplane.proxy import Proxy, open_proxy
from tests.backplane.redis.servers import RedisServer
from trioroom.backplane import removals
from trioroom.backplane.redis import RedisBackplane, RedisSettings, open_redis
from trioroom.testing.presence_conformance import Watcher

pytestmark = pytest.mark.redis
ROOM = "room/a"
STAYS = "room/stays"
SETTINGS = RedisSettings(probe_interval=0.2, probe_timeout=0.5, max_backoff=0.1, timeout=1.0)  # a lease of 30 seconds
INTERVAL = 0.02


@attrs.frozen
class Scene:
    """Two nodes, of which one is behind a proxy."""

    behind: RedisBackplane
    proxy: Proxy
    witness: RedisBackplane

    @asynccontextmanager
    async def watched(self, room: str) -> AsyncIterator[Watcher]:
        """What the witness knows of the room."""
        watcher = Watcher()
        async with self.witness.presence.open(room, watcher, INTERVAL):
            yield watcher

    async def close_in_an_outage(self, *rooms: str) -> None:
        """Open rooms behind the proxy, put a row there that the witness sees, and close them when it is too late."""
        async with AsyncExitStack() as watching:
            watchers = [await watching.enter_async_context(self.watched(room)) for room in rooms]
            async with trio.open_nursery() as nursery:
                for room, watcher in zip(rooms, watchers, strict=True):
                    await nursery.start(self._hold, room, watcher)
                self.proxy.black_hole()
                nursery.cancel_scope.cancel()

    async def _hold(self, room: str, watcher: Watcher, *, task_status: trio.TaskStatus[None]) -> None:
        async with self.behind.presence.open(room, Watcher(), INTERVAL) as seat:
            seat.put("ghost", b"1")
            await watcher.wait_count(1)
            task_status.started()
            await trio.sleep_forever()


@asynccontextmanager
async def open_scene(server: RedisServer, settings: RedisSettings = SETTINGS) -> AsyncIterator[Scene]:
    with trio.fail_after(25):
        async with open_proxy(server.port) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}"
            async with (
                open_redis(server.url, settings=settings) as witness,
                open_redis(url, settings=settings) as behind,
            ):
                yield Scene(behind, proxy, witness)


@pytest.fixture(autouse=True)
def close_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removals, "CLOSE_TIMEOUT", 0.2)


async def test_rows_of_a_room_that_was_closed_in_an_outage_go_when_it_is_over(redis_server: RedisServer) -> None:
    async with open_scene(redis_server) as scene, scene.behind.presence.open(STAYS, Watcher(), INTERVAL):
        async with scene.watched(ROOM) as watcher:
            await scene.close_in_an_outage(ROOM)
            assert watcher.rows() == [("ghost", b"1")]
            await trio.sleep(1.5)  # attempts fail, and the link is given up
            assert watcher.gone == []
            scene.proxy.heal()
            with trio.fail_after(5):
                await watcher.wait_count(0)
            assert len(watcher.gone) == 1


async def test_room_that_is_opened_again_meanwhile_shows_no_ghosts(redis_server: RedisServer) -> None:
    async with open_scene(redis_server) as scene, scene.behind.presence.open(STAYS, Watcher(), INTERVAL):
        await scene.close_in_an_outage(ROOM)
        scene.proxy.heal()
        again = Watcher()
        async with scene.watched(ROOM) as watcher, scene.behind.presence.open(ROOM, again, INTERVAL) as seat:
            seat.put("ann", b"2")
            with trio.fail_after(5):
                await again.wait_rows()
                await watcher.wait_rows(("ann", b"2"))


async def test_rows_of_a_node_that_has_closed_all_its_rooms_go_too(redis_server: RedisServer) -> None:
    async with open_scene(redis_server) as scene, scene.watched(ROOM) as watcher:
        await scene.close_in_an_outage(ROOM)
        scene.proxy.heal()
        with trio.fail_after(5):
            await watcher.wait_count(0)


async def test_more_than_a_node_can_remember_goes_with_its_lease_and_nothing_else_does(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removals, "MAX_OWED", 3)
    rooms = [f"room/{number}" for number in range(5)]
    counts = set()

    async def watch(watcher: Watcher) -> None:
        while True:
            counts.add(watcher.count)
            await watcher.wait_changed()

    async with open_scene(redis_server, attrs.evolve(SETTINGS, presence_lease=6.0)) as scene, AsyncExitStack() as stack:
        seat = await stack.enter_async_context(scene.behind.presence.open(STAYS, Watcher(), INTERVAL))
        stays = await stack.enter_async_context(scene.watched(STAYS))
        seat.put("stays", b"1")
        await stays.wait_count(1)
        [before] = stays.seats
        watchers = [await stack.enter_async_context(scene.watched(room)) for room in rooms]
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(watch, stays)
        await scene.close_in_an_outage(*rooms)
        scene.proxy.heal()
        with trio.fail_after(6 + 5):
            for watcher in watchers:
                await watcher.wait_count(0)
        assert before not in stays.seats, "the node is the same one"
        nursery.cancel_scope.cancel()
    assert counts <= {1, 2}, "who stayed was gone for a moment"


async def test_removal_that_the_broker_refuses_is_tried_again_and_holds_up_no_other(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(removals, "AT_ONCE", 1)
    table = "trioroom:{room:room/a}:presence"
    async with open_scene(redis_server) as scene, scene.behind.presence.open(STAYS, Watcher(), INTERVAL):
        async with scene.behind.presence.open(ROOM, Watcher(), INTERVAL) as seat:
            seat.put("ghost", b"1")
            await trio.sleep(0.2)
            await redis_server.command("RENAME", table, "aside")
            await redis_server.command("SET", table, "of another program")
        async with scene.watched("room/b") as other:
            await scene.close_in_an_outage("room/b")
            scene.proxy.heal()
            with trio.fail_after(5):
                await other.wait_count(0)
        await trio.sleep(1)
        refused = [record for record in caplog.records if "WRONGTYPE" in record.message]
        assert 1 <= len(refused) <= 3, "once, whatever the number of attempts; the seat itself may say so before"
        await redis_server.command("RENAME", "aside", table)
        async with scene.watched(ROOM) as watcher:
            with trio.fail_after(5):
                await watcher.wait_count(0)


async def test_seat_is_open_when_its_table_was_read_also_if_the_link_breaks_meanwhile(
    redis_server: RedisServer,
) -> None:
    opened, watcher = trio.Event(), Watcher()

    async def reads() -> int:
        statistics = (await redis_server.command("INFO", "commandstats")).decode()
        return int(statistics.partition("cmdstat_hgetall:calls=")[2].partition(",")[0] or 0)

    async def read_again() -> bool:
        return await reads() > before

    async def open_seat(node: RedisBackplane) -> None:
        async with node.presence.open(ROOM, watcher, INTERVAL):
            assert watcher.resyncs, "entered before the first resynced"
            opened.set()
            await watcher.wait_rows(("ann", b"1"))

    async with open_scene(redis_server) as scene, scene.witness.presence.open(ROOM, Watcher(), INTERVAL) as seat:
        node = scene.behind
        async with node.presence.open(STAYS, Watcher(), INTERVAL), trio.open_nursery() as nursery:
            # A row of an unknown node has the reader look at the leases, and there we hold it up.
            await redis_server.command("HSET", "trioroom:{room:room/a}:presence", "dead.1/ghost", "1")
            before = await reads()
            async with node.presence._leases._looking:
                nursery.start_soon(open_seat, node)
                await until(read_again, "the table is read")
                await trio.sleep(0.1)  # until the reply is there too
                scene.proxy.reset()
                await node._topology.wait_changed()
                while not node.ready:
                    await node._topology.wait_changed()
            await opened.wait()
            seat.put("ann", b"1")
