"""Presence on one server, and on a cluster of three."""

from __future__ import annotations

import pytest

from tests.backplane.nats.brokers import NatsClusterOfThree, OneNatsServer
from trioroom.testing.presence_conformance import PresenceConformance

pytestmark = pytest.mark.nats


class TestOneServer(OneNatsServer, PresenceConformance):
    """All nodes on one."""

    deadline = 20.0


class TestCluster(NatsClusterOfThree, PresenceConformance):
    """Nodes on different servers, of which any may tell what is in the table."""

    deadline = 20.0
