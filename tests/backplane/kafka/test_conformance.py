"""The contract of backplanes, on two servers that speak Kafka's protocol and on librdkafka's mock cluster.

None of them is Apache Kafka: see `tests.backplane.kafka.servers`.
"""

from __future__ import annotations

import pytest

from tests.backplane.kafka.brokers import OnBroker
from trioroom.testing import BackplaneConformance

pytestmark = pytest.mark.kafka


class TestKafka(OnBroker, BackplaneConformance):
    """Rooms without a history."""
