"""Recovery over a real broker that dies: every member is complete, or knows where it is not."""

from __future__ import annotations

from functools import partial

import pytest

from tests.backplane.reconnecting import GAP, lacks, open_stage, outlive_restarts
from tests.backplane.redis.servers import binaries, open_redis_server
from trioroom.backplane.redis import RedisSettings, open_redis

pytestmark = pytest.mark.redis

SETTINGS = RedisSettings(timeout=2.0, probe_interval=0.2, probe_timeout=1.0, max_backoff=0.2)


def test_checker_sees_what_is_wrong() -> None:
    a, b = [(0, number) for number in range(4)], [(1, number) for number in range(4)]
    assert lacks([a[0], b[0], a[1], b[1]], [2, 2]) == []
    assert lacks([a[1], a[2], a[3]], [4]) == []
    assert lacks([a[0], GAP, a[3]], [4]) == []
    assert lacks([a[0], a[1], GAP], [4]) == []
    assert lacks([a[0], a[2], a[3]], [4]) == ["(0, 2) after 0: lost in silence"]
    assert lacks([a[0], b[0], GAP, b[1], a[1], a[3]], [4, 2]) == ["(0, 3) after 1: lost in silence"]
    assert lacks([a[0], a[1], a[1]], [2]) == ["(0, 1) after 1: twice, or out of order"]
    assert lacks([a[0], a[1]], [4]) == ["publisher 0 ends with 1 and not 3"]


@pytest.mark.untraced
async def test_members_that_reconnect_at_random_lose_nothing_in_silence() -> None:
    async with (
        open_redis_server(binaries()["valkey"], "--appendonly", "yes") as server,
        open_stage(partial(open_redis, server.url, settings=SETTINGS), members=20, interval=0.01, seed=5) as stage,
    ):
        await outlive_restarts(stage, server)
