"""The contract of histories, on what speaks Kafka's protocol: offsets that rooms share, and views in memory."""

from __future__ import annotations

import pytest

from tests.backplane.kafka.brokers import OnBroker
from trioroom.testing import HistoryConformance

pytestmark = pytest.mark.kafka


class TestKafka(OnBroker, HistoryConformance):
    """Rooms with a history."""
