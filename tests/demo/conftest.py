from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.demo.brokers import EACH, KINDS, Broker


@pytest.fixture(params=EACH)
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    """One of each kind."""
    async with KINDS[request.param]() as opened:
        yield opened
