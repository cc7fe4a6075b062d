"""The contract of histories, on real servers: Redis, Valkey, and a cluster of three."""

from __future__ import annotations

import pytest

from tests.backplane.brokers import parameters
from tests.backplane.redis.brokers import OneServer, SharedCluster
from trioroom.testing import HistoryConformance

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("binary", parameters("redis", "valkey"), scope="class")
class TestOneServer(OneServer, HistoryConformance):
    """Redis and Valkey."""


class TestCluster(SharedCluster, HistoryConformance):
    """Sharded Pub/Sub, and keys in slots."""
