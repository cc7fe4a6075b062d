"""What may be set, and what may not."""

from __future__ import annotations

from typing import Any

import pytest

from trioroom.backplane.kafka import KafkaSettings
from trioroom.backplane.kafka.plans import rooms_plan


@pytest.mark.parametrize(
    "wrong",
    [
        {"prefix": ""},
        {"prefix": "a/b"},
        {"prefix": "x" * 201},
        {"partitions": 0},
        {"partitions": 1.5},
        {"replication_factor": -2},
        {"retention": 0},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"connect_timeout": 0.5},
        {"linger": -1},
        {"linger": 2},
        {"fetch_wait": 0},
        {"max_queued_publications": 0},
        {"max_publication_bytes": (1 << 25) + 1},
        {"publication_id_ttl": 0},
        *({name: 301.0} for name in ("timeout", "connect_timeout", "probe_timeout", "max_backoff", "fetch_wait")),
        *({name: 1 << 40} for name in ("max_fetched_bytes", "max_queued_publications", "max_queued_bytes")),
        {"retention": 60.0},  # ids are known for 300 s
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        KafkaSettings(**wrong)


def test_topic_of_the_rooms_is_planned_by_the_settings() -> None:
    plan = rooms_plan(KafkaSettings(prefix="shop", partitions=3, retention=900.0))
    assert (plan.name, plan.partitions, plan.config["retention.ms"]) == ("shop.rooms", 3, "900000")


def test_publication_that_is_too_large_is_refused_with_advice() -> None:
    settings = KafkaSettings(max_publication_bytes=10)
    settings.check_payload(b"x" * 10)
    with pytest.raises(ValueError, match=r"^publication of 11 bytes exceeds max_publication_bytes=10; raise"):
        settings.check_payload(b"x" * 11)
