"""Presence on one server, and on a cluster of three."""

from __future__ import annotations

import pytest

from tests.backplane.nats.brokers import NatsClusterOfThree, OneNatsServer
from trioroom.testing.presence_conformance import PresenceConformance

pytestmark = pytest.mark.nats


class TestOneServer(OneNatsServer, PresenceConformance):
    """All nodes on one."""

    deadline = 20.0


class TestClusterWithOneCopy(NatsClusterOfThree, PresenceConformance):
    """Nodes on different servers, of which one has the table."""

    deadline = 20.0

    @pytest.fixture(autouse=True)
    def take_one_copy(self, take_urls: None) -> None:
        self.urls = [url.replace("replicas=3", "replicas=1") for url in self.urls]


class TestCluster(NatsClusterOfThree, PresenceConformance):
    """Nodes on different servers, of which any may tell what is in the table."""

    deadline = 20.0
