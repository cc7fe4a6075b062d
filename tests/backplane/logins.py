"""Whether a broker lets a node in that comes with a login, or says why not."""

from __future__ import annotations

import pytest
import trio

from trioroom import open_backplane
from trioroom.errors import BackplaneUnavailable
from trioroom.testing.conformance import subscribed


async def passes_on(url: str, *, within: float = 5.0) -> None:
    """What is published comes."""
    with trio.fail_after(within):
        async with open_backplane(url) as node, subscribed(node, "room", 2) as deliveries:
            await node.publish("room", b"x")
            assert await deliveries.receive() == b"x"


async def refuses(url: str, why: str, *, within: float = 5.0) -> None:
    """It is told ``why``, without any secret."""
    with trio.fail_after(within), pytest.raises(BackplaneUnavailable, match=why) as raised:
        async with open_backplane(url):
            pytest.fail("it should be refused")
    assert "sesame" not in str(raised.value)
