"""What goes wrong with a table in Redis while a node is cut off or comes back."""

from __future__ import annotations

import pytest
import trio

from tests.backplane.brokers import Broker, brokers
from tests.backplane.outages import ROOM, STAYS, open_scene, open_seat
from tests.backplane.processes import until
from tests.backplane.redis.servers import RedisServer
from trioroom.backplane import removals
from trioroom.backplane.redis import RedisBackplane
from trioroom.testing.presence_conformance import Watcher

pytestmark = brokers("valkey")


@pytest.fixture(autouse=True)
def close_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removals, "CLOSE_TIMEOUT", 0.2)


async def test_removal_that_the_broker_refuses_is_tried_again_and_holds_up_no_other(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = broker.server
    assert isinstance(server, RedisServer)
    monkeypatch.setattr(removals, "AT_ONCE", 1)
    table = "trioroom:{room:room/a}:presence"
    async with open_scene(broker) as scene, open_seat(scene.behind, STAYS, Watcher()):
        async with open_seat(scene.behind, ROOM, Watcher()) as seat:
            seat.put("ghost", b"1")
            await trio.sleep(0.2)
            await server.command("RENAME", table, "aside")
            await server.command("SET", table, "of another program")
        async with scene.watched("room/b") as other:
            await scene.close_in_an_outage("room/b")
            scene.proxy.heal()
            with trio.fail_after(5):
                await other.wait_count(0)
        await trio.sleep(1)
        refused = [record for record in caplog.records if "WRONGTYPE" in record.message]
        assert 1 <= len(refused) <= 3, "once, whatever the number of attempts; the seat itself may say so before"
        await server.command("RENAME", "aside", table)
        async with scene.watched(ROOM) as watcher:
            with trio.fail_after(5):
                await watcher.wait_count(0)


async def test_seat_is_open_when_its_table_was_read_also_if_the_link_breaks_meanwhile(
    broker: Broker,
) -> None:
    server = broker.server
    assert isinstance(server, RedisServer)
    opened, watcher = trio.Event(), Watcher()

    async def reads() -> int:
        statistics = (await server.command("INFO", "commandstats")).decode()
        return int(statistics.partition("cmdstat_hgetall:calls=")[2].partition(",")[0] or 0)

    async def read_again() -> bool:
        return await reads() > before

    async def hold(node: RedisBackplane) -> None:
        async with open_seat(node, ROOM, watcher):
            assert watcher.resyncs, "entered before the first resynced"
            opened.set()
            await watcher.wait_rows(("ann", b"1"))

    async with open_scene(broker) as scene, open_seat(scene.witness, ROOM, Watcher()) as seat:
        node = scene.behind
        assert isinstance(node, RedisBackplane)
        async with open_seat(node, STAYS, Watcher()), trio.open_nursery() as nursery:
            # A row of an unknown node has the reader look at the leases, and there we hold it up.
            await server.command("HSET", "trioroom:{room:room/a}:presence", "dead.1/ghost", "1")
            before = await reads()
            async with node.presence._leases._looking:
                nursery.start_soon(hold, node)
                await until(read_again, "the table is read")
                await trio.sleep(0.1)  # until the reply is there too
                scene.proxy.reset()
                await node._topology.wait_changed()
                while not node.ready:
                    await node._topology.wait_changed()
            await opened.wait()
            seat.put("ann", b"1")
