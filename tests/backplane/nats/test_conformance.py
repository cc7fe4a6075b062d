"""The contract of backplanes, on real servers: one, and a cluster of three."""

from __future__ import annotations

import pytest

from tests.backplane.nats.brokers import NatsClusterOfThree, OneNatsServer
from trioroom.testing import BackplaneConformance

pytestmark = pytest.mark.nats


class TestOneServer(OneNatsServer, BackplaneConformance):
    """All nodes on one."""


class TestCluster(NatsClusterOfThree, BackplaneConformance):
    """Nodes on different servers."""
