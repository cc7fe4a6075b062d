"""What breaks a link without a word: no node is deaf and ready for long."""

from __future__ import annotations

from typing import Final

import pytest
import trio

from tests.backplane.brokers import Broker, brokers
from tests.backplane.observers import DEAF_AND_READY, open_flow, open_nodes
from tests.backplane.proxy import open_proxy

ROOMS = ("chat/a", "chat/b", "chat/c")
TICK = 1.0  # of the probe, with the default settings: min(probe_interval, probe_timeout / 2)
NOTICED: Final = 1.0 + TICK
"""Seconds: probe_interval and a tick, until a deaf node is no longer ready."""
AGAIN: Final = 2.0
"""Seconds until traffic flows when the server is back."""
AGAIN_AFTER_SILENCE: Final = 2.0 + 1.0 + 1.0
"""And when the network is: connect_timeout + max_backoff + 1."""


@brokers("valkey", "nats")
async def test_stopped_server(broker: Broker) -> None:
    async with open_nodes(broker.url(), broker.url()) as nodes, open_flow(nodes, ROOMS) as flow:
        broker.server.stop()
        await flow.becomes(False, within=NOTICED)
        deaf_since = trio.current_time()
        await trio.sleep(7 - NOTICED)  # longer than timeout
        assert not any(flow.was_ready(node, deaf_since) for node in (0, 1))
        broker.server.resume()
        await flow.flows(AGAIN)
        await flow.becomes(True, within=0.5)
        assert all(flow.failures(room) > 0 for room in ROOMS)  # in flight, or longer than timeout
    assert flow.noticed() == {(node, room) for node in (0, 1) for room in ROOMS}


@brokers("valkey", "nats")
@pytest.mark.parametrize("seconds", [pytest.param(1.0, marks=pytest.mark.thorough), 4.0])
async def test_black_hole_hits_only_who_is_behind_it(seconds: float, broker: Broker) -> None:
    async with open_proxy(broker.server.port) as proxy:
        async with open_nodes(broker.url(proxy.port), broker.url()) as nodes, open_flow(nodes, ROOMS) as flow:
            proxy.black_hole()
            with trio.move_on_after(seconds):
                await flow.becomes(False, within=NOTICED, nodes=[0])
                await trio.sleep_forever()
            proxy.heal()  # but the connections there were stay dead
            await flow.becomes(False, within=NOTICED, nodes=[0])
            await flow.told(DEAF_AND_READY + AGAIN_AFTER_SILENCE, nodes=[0])
            await flow.flows(AGAIN_AFTER_SILENCE)
            await flow.becomes(True, within=0.5)
        assert flow.noticed() == {(0, room) for room in ROOMS}
        assert flow.always_ready(1)
