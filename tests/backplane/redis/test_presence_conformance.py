"""Presence on one server of each kind, and on a cluster."""

from __future__ import annotations

import pytest

from tests.backplane.brokers import parameters
from tests.backplane.redis.brokers import OneServer, SharedCluster
from trioroom.testing.presence_conformance import PresenceConformance

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("binary", parameters("redis", "valkey"))
class TestOneServer(OneServer, PresenceConformance):
    deadline = 20.0


class TestCluster(SharedCluster, PresenceConformance):
    deadline = 20.0
