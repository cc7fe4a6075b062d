"""The contract of presence, on all that speak Kafka's protocol here; none of them compacts a topic."""

from __future__ import annotations

import pytest

from tests.backplane.kafka.brokers import OnBroker
from trioroom.testing.presence_conformance import PresenceConformance

pytestmark = pytest.mark.kafka


class TestKafka(OnBroker, PresenceConformance):
    deadline = 20.0
