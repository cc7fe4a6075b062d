"""A node goes to its broker through its proxy and no other way, else faults of the link would not hit it."""

from __future__ import annotations

import pytest

from tests.backplane.processes import until
from tests.backplane.proxy import open_proxy
from tests.faults.brokers import BROKERS
from trioroom import open_backplane


@pytest.mark.parametrize("name", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in BROKERS])
async def test_nothing_goes_past_the_proxy(name: str) -> None:
    async with BROKERS[name]() as broker, open_proxy(broker.server.port, address=broker.address) as proxy:
        async with open_backplane(f"{broker.url(proxy.port)}&probe_timeout=0.5") as node:

            async def is_up() -> bool:
                return node.ready

            async def is_down() -> bool:
                return not node.ready

            await until(is_up, "the node is ready")
            proxy.black_hole()
            await until(is_down, "the node notices")
            proxy.heal()
            await until(is_up, "the node is back")
