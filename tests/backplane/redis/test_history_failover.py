"""A history over a real failover: the replica that takes over goes on from what it has."""

from __future__ import annotations

import pytest
import trio

from tests.backplane.redis.servers import Sentinels
from trioroom._core.history import History
from trioroom.backplane.redis import RedisSettings, open_redis

pytestmark = pytest.mark.redis

KEPT = History(5)


async def test_epoch_goes_on_in_another_at_the_replica_that_takes_over(sentinels: Sentinels) -> None:
    with trio.fail_after(30):
        async with open_redis(sentinels.url, settings=RedisSettings(timeout=20)) as backplane:
            before = await backplane.history.publish("hall", b"1", KEPT, "id")
            await sentinels.master.command("WAIT", 1, 5000)  # for the replica to have it
            sentinels.master.kill()
            while backplane.ready:  # until it has noticed, or the publication is one that broke off
                await backplane._topology.wait_changed()
            assert await backplane.history.publish("hall", b"twice", KEPT, "id") == before
            page = await backplane.history.read_after("hall", KEPT, 0, 10, seen=before)
            assert (page.previous, page.position.offset) == (before, 1)
            assert [kept.payload for kept in page.kept] == [b"1"]
