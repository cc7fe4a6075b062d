"""The contract of backplanes, on noida and librdkafka's mock cluster, and on Apache Kafka where there is one.

Not on tansu: when several nodes write at once it now and then answers a reader without a record that others get, which
no client can notice. See `tests.backplane.kafka.servers`.
"""

from __future__ import annotations

import pytest

from tests.backplane.kafka.brokers import OnBroker
from trioroom.testing import BackplaneConformance

pytestmark = pytest.mark.kafka


class TestKafka(OnBroker, BackplaneConformance):
    """Rooms without a history."""
