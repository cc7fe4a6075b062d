"""Recovery over a real server that dies: every member is complete, or knows where it is not."""

from __future__ import annotations

from functools import partial

import pytest

from tests.backplane.nats.servers import NatsServer
from tests.backplane.reconnecting import open_stage, outlive_restarts
from trioroom.backplane.nats import NatsSettings, open_nats

pytestmark = pytest.mark.nats

SETTINGS = NatsSettings(timeout=2.0, probe_interval=0.2, probe_timeout=1.0, max_backoff=0.2, max_history_size=4_096)


async def test_members_that_reconnect_at_random_lose_nothing_in_silence(nats_server: NatsServer) -> None:
    open_node = partial(open_nats, nats_server.url, settings=SETTINGS)
    async with open_stage(open_node, members=20, interval=0.01, seed=5) as stage:
        await outlive_restarts(stage, nats_server)
