"""Nodes of the conformance suites. A broker serves all tests of a module, for none of them sees another's topic."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

import pytest

from tests.backplane.kafka.mock_cluster import MockCluster
from tests.backplane.kafka.servers import KafkaServer
from tests.backplane.observers import open_nodes
from trioroom.backplane.base import Backplane

PROMPT = "fetch_wait=0.01"
"""For tansu and the mock cluster, which do not answer a fetch that waits when something comes."""
_PARTITIONS = 2  # more would say the same, and cost each node more probes
_PATIENCE = 10  # seconds, as opening raises when the first probe fails, and other tests keep the machine busy
_numbers = count()


def new_topic(broker: KafkaServer | MockCluster) -> str:
    """The URL of one that nobody else uses. The mock cluster cannot be asked for one by its protocol."""
    prefix = f"test{next(_numbers)}"
    if isinstance(broker, MockCluster):
        broker.create_topic(f"{prefix}.rooms", _PARTITIONS, len(broker.brokers))
        broker.create_topic(f"{prefix}.presence", 1, len(broker.brokers))
    return f"{broker.url}?{PROMPT}&partitions={_PARTITIONS}&prefix={prefix}&probe_timeout={_PATIENCE}"


class OnBroker:
    """A test class that the fixture `broker` parametrizes."""

    @pytest.fixture(autouse=True)
    def take_broker(self, broker: KafkaServer | MockCluster) -> None:
        self.url = new_topic(broker)

    @asynccontextmanager
    async def open_nodes(self, count: int) -> AsyncIterator[Sequence[Backplane]]:
        """All on one topic."""
        async with open_nodes(*[self.url] * count) as nodes:
            yield nodes
