"""Nodes of the conformance suites. A broker serves all tests of a module, for none of them sees another's topic."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

import pytest

from tests.backplane.observers import open_nodes
from trioroom.backplane.base import Backplane

PROMPT = "fetch_wait=0.01"
"""For tansu and the mock cluster, which do not answer a fetch that waits when something comes."""
_numbers = count()


class OnBroker:
    """A test class parametrized by the fixture `kafka_url`."""

    @pytest.fixture(autouse=True)
    def take_url(self, kafka_url: str) -> None:
        # Two partitions: more would say the same, and cost each node more probes.
        self.url = f"{kafka_url}?{PROMPT}&partitions=2&prefix=test{next(_numbers)}"

    @asynccontextmanager
    async def open_nodes(self, count: int) -> AsyncIterator[Sequence[Backplane]]:
        async with open_nodes(*[self.url] * count) as nodes:
            yield nodes
