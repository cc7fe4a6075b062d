"""Real processes that die, stop and come back: who is present is what the living have put, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from tests.backplane.brokers import Broker, brokers
from tests.backplane.observers import open_nodes
from tests.backplane.presence_course import ROOM
from tests.backplane.presence_node import open_process, rows_go_at_once, stop_longer_than_its_lease
from tests.backplane.processes import until
from tests.backplane.redis.servers import RedisServer
from trioroom.backplane import refreshing
from trioroom.backplane.base import PresenceStore
from trioroom.backplane.nats import open_nats
from trioroom.testing.presence_conformance import Watcher

LEASE = 2.0
SETTINGS = {"presence_lease": LEASE, "probe_interval": 0.2, "probe_timeout": 1.0, "max_backoff": 0.1, "timeout": 2.0}
pytestmark = brokers("valkey", "nats")


@asynccontextmanager
async def open_presence(url: str) -> AsyncIterator[PresenceStore]:
    async with open_nodes(url) as (node,):
        assert node.presence is not None
        yield node.presence


async def is_clean(broker: Broker) -> bool:
    """No row of the room is left at the broker, and of the leases one."""
    if isinstance(broker.server, RedisServer):
        return bool(await broker.server.command("HKEYS", f"trioroom:{{room:{ROOM}}}:presence") == [b"v"])
    async with open_nats(broker.url()) as node:
        bucket = node.presence._bucket
        return not await bucket.read(f"room.{ROOM}.*.*.*") and len(await bucket.read("node.*")) == 1


async def test_rows_of_a_killed_process_are_gone_within_its_lease_at_once_and_told_once(broker: Broker) -> None:
    watcher, url = Watcher(), broker.url(presence_lease=LEASE)
    with trio.fail_after(20):
        async with (
            open_presence(url) as here,
            here.open(ROOM, watcher, 0.1),
            open_process(url, ROOM, 1_000, "a") as a,
        ):
            await watcher.wait_count(1_000)
            a.kill()
            await rows_go_at_once(watcher, within=LEASE + 2)

            async def removed() -> bool:
                return await is_clean(broker)

            await until(removed, "rows and lease of the dead node are removed")


async def test_process_that_was_stopped_for_longer_than_its_lease_comes_back(broker: Broker) -> None:
    watcher, url = Watcher(), broker.url(presence_lease=LEASE)
    with trio.fail_after(30):
        async with (
            open_presence(url) as here,
            here.open(ROOM, watcher, 0.1) as seat,
            open_process(url, ROOM, 100, "a") as a,
        ):
            seat.put("ours", b"null")
            await watcher.wait_count(100)
            await stop_longer_than_its_lease(a, watcher, LEASE, within=5)


async def test_seat_that_is_closed_while_the_broker_is_away_takes_a_moment_only(broker: Broker) -> None:
    with trio.fail_after(20):
        async with open_presence(broker.url(**SETTINGS)) as here:
            async with here.open(ROOM, Watcher(), 0.05) as seat:
                seat.put("ann", b"1")
                await trio.sleep(0.2)
                broker.server.kill()
                began = trio.current_time()
            assert trio.current_time() - began < 3


async def test_rooms_that_were_opened_together_are_not_read_again_together(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refreshing, "_REFRESH_INTERVAL", 1.0)
    times: list[float] = []

    class Timed(Watcher):
        def resynced(self, seats: Mapping[str, Mapping[str, bytes]]) -> None:
            super().resynced(seats)
            if self.resyncs == 2:
                times.append(trio.current_time())

        async def wait_again(self) -> None:
            await self.wait(lambda: self.resyncs >= 2)

    with trio.fail_after(20):
        async with AsyncExitStack() as stack:
            here = await stack.enter_async_context(open_presence(broker.url(**SETTINGS)))
            watchers = [Timed() for _ in range(30)]
            for number, watcher in enumerate(watchers):
                await stack.enter_async_context(here.open(f"room/{number}", watcher, 0.05))
            opened = trio.current_time()
            for watcher in watchers:
                await watcher.wait_again()
    assert max(times) - min(times) > 0.25, "nearly at once, though half an interval is at chance"
    assert max(times) - opened < 3, "and none much later than the interval"
