"""What breaks a link without a word: no node is deaf and ready for long."""

from __future__ import annotations

import pytest
import trio

from tests.backplane.nats.brokers import open_nodes
from tests.backplane.nats.servers import NatsServer
from trioroom.errors import BackplaneUnavailable

pytestmark = pytest.mark.nats


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
