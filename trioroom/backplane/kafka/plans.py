"""The topics that we make where there are none, and how."""

from __future__ import annotations

import attrs

from trioroom.backplane.kafka.settings import OVERHEAD_BYTES, KafkaSettings

_SEGMENT = 3_600.0  # seconds: what is younger is not compacted; Kafka's own week of beats would be read by who starts


@attrs.frozen
class TopicPlan:
    """One topic."""

    name: str
    partitions: int
    """If we are the ones to make it."""
    config: dict[str, str]
    """Likewise, in Kafka's words."""
    label: str = ""
    """Before what the log says of the link to it, as there is more than one."""


def rooms_plan(settings: KafkaSettings) -> TopicPlan:
    """Of what rooms publish."""
    return TopicPlan(f"{settings.prefix}.rooms", settings.partitions, _config(settings, retention=settings.retention))


def presence_plan(settings: KafkaSettings) -> TopicPlan:
    """Of who is present: one partition, as all nodes are to see one order, and the last record of each key is kept."""
    return TopicPlan(
        f"{settings.prefix}.presence",
        1,
        {**_config(settings), "cleanup.policy": "compact", "segment.ms": _milliseconds(_SEGMENT)},
        label="presence: ",
    )


def _config(settings: KafkaSettings, retention: float | None = None) -> dict[str, str]:
    return {
        **({} if retention is None else {"retention.ms": _milliseconds(retention)}),
        "max.message.bytes": str(settings.max_publication_bytes + OVERHEAD_BYTES),
        # One clock for each partition, so that all nodes find the same records too old.
        "message.timestamp.type": "LogAppendTime",
    }


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1_000)))
