"""What breaks a link without a word: no node is deaf and ready for long."""

from __future__ import annotations

import pytest
import trio

from tests.backplane.nats.brokers import open_nodes
from tests.backplane.nats.servers import NatsServer
from tests.backplane.observers import DEAF_AND_READY, open_flow
from tests.backplane.proxy import open_proxy
from trioroom.errors import BackplaneUnavailable

pytestmark = pytest.mark.nats

ROOMS = ("chat/a", "chat/b", "chat/c")
TICK = 1.0  # of the probe, with the default settings: min(probe_interval, probe_timeout / 2)
NOTICED = 1.0 + TICK  # probe_interval + a tick, until a deaf node is no longer ready
AGAIN = 2.0  # seconds until traffic flows when the server is back
AGAIN_AFTER_SILENCE = 2.0 + 1.0 + 1.0  # and when the network is: connect_timeout + max_backoff + 1


async def test_stopped_server(nats_server: NatsServer) -> None:
    async with open_nodes(nats_server.url, nats_server.url) as nodes, open_flow(nodes, ROOMS) as flow:
        nats_server.stop()
        await flow.becomes(False, within=NOTICED)
        deaf_since = trio.current_time()
        await trio.sleep(10 - NOTICED)
        assert not any(flow.was_ready(node, deaf_since) for node in (0, 1))
        nats_server.resume()
        await flow.flows(AGAIN)
        await flow.becomes(True, within=0.5)
        assert all(flow.failures(room) > 0 for room in ROOMS)  # in flight, or longer than timeout
    assert flow.noticed() == {(node, room) for node in (0, 1) for room in ROOMS}


@pytest.mark.parametrize("seconds", [1.0, 4.0])
async def test_black_hole_hits_only_who_is_behind_it(seconds: float, nats_server: NatsServer) -> None:
    async with open_proxy(nats_server.port) as proxy:
        async with open_nodes(f"nats://127.0.0.1:{proxy.port}", nats_server.url) as nodes:
            async with open_flow(nodes, ROOMS) as flow:
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


async def test_server_that_comes_up_later_is_not_waited_for_when_opening_but_is_afterwards(
    nats_server: NatsServer,
) -> None:
    nats_server.kill()
    with trio.fail_after(3), pytest.raises(BackplaneUnavailable, match="cannot connect: Connection refused"):
        async with open_nodes(nats_server.url):
            pytest.fail("nobody is there")
    await nats_server.restart()
    async with open_nodes(nats_server.url) as (node,):
        nats_server.kill()
        with trio.fail_after(5):
            while node.ready:  # noqa: ASYNC110  # what is on its way when the link breaks has failed
                await trio.sleep(0.01)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.publish, "chat/a", b"waits for it")
            await trio.sleep(1)
            await nats_server.restart()
