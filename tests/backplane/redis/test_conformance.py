"""The contract of backplanes, on real servers: Redis, Valkey, and a cluster of three."""

from __future__ import annotations

import pytest

from tests.backplane.brokers import parameters
from tests.backplane.redis.brokers import OneServer, SharedCluster
from trioroom.testing import BackplaneConformance

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("binary", parameters("redis", "valkey"), scope="class")
class TestOneServer(OneServer, BackplaneConformance):
    """Redis and Valkey."""


class TestCluster(SharedCluster, BackplaneConformance):
    """Sharded Pub/Sub, and keys in slots."""
