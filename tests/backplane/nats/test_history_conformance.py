"""The contract of histories, on real servers: one, with a file or in memory, and a cluster of three."""

from __future__ import annotations

import pytest

from tests.backplane.nats.brokers import NatsClusterOfThree, OneNatsServer
from trioroom.testing import HistoryConformance

pytestmark = pytest.mark.nats


class TestFile(OneNatsServer, HistoryConformance):
    """All nodes on one server, which keeps them in a file."""


class TestMemory(OneNatsServer, HistoryConformance):
    """All nodes on one server, which keeps them in memory."""

    @pytest.fixture(autouse=True)
    def take_storage(self, take_url: None) -> None:
        self.url += "&storage=memory"


class TestCluster(NatsClusterOfThree, HistoryConformance):
    """Nodes on different servers, which all keep them."""
