"""What there is to tell of a server at a moment, and how the numbers of a family with labels are found in it.

Every label has a fixed set of values; none of them comes from a peer.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from trioroom._core.admission import Verdict
from trioroom._core.histogram import Histogram
from trioroom._core.meters import GAP_REASONS, OTHER, LinkMeters, Meters, Outcome
from trioroom._core.overflow import SlowConsumer
from trioroom._core.statistics import ServerStatistics

if TYPE_CHECKING:
    from trioroom._net.vitals import ProcessFigures, Vitals

Value = float | Histogram
Samples = Iterable[tuple[tuple[str, ...], Value]]


@attrs.frozen
class Moment:
    """All that there is to tell of a server, read at once."""

    version: str
    statistics: ServerStatistics
    meters: Meters
    refused: dict[Verdict, int]
    """By the entrance: how many, by the reason."""
    max_connections: float
    max_queued_bytes: float
    vitals: Vitals
    link: LinkMeters | None
    """None where there is no broker, or a backplane that does not count."""
    process: ProcessFigures


def read_connections(moment: Moment) -> Samples:
    """By how they speak."""
    spoken = ("plain", "v1.json", "v1.msgpack")
    return (((mode,), moment.meters.connections[mode]) for mode in spoken)


def read_closed(moment: Moment) -> Samples:
    """By close code."""
    return (((code,), count) for code, count in moment.statistics.closed_connections.items())


def read_handshakes(moment: Moment) -> Samples:
    """By outcome and status; those that were refused at the entrance too."""
    yield ("accepted", "101"), moment.meters.opened
    always = {(Outcome.TIMED_OUT, 408): 0, (Outcome.FAILED, None): 0}
    for (outcome, status), count in {**always, **moment.meters.handshakes}.items():
        yield (outcome.value, "" if status is None else str(status)), count
    for verdict in Verdict:
        if verdict is not Verdict.ADMITTED:
            yield (verdict.value, _ANSWERED.get(verdict, "503")), moment.refused.get(verdict, 0)


_ANSWERED = {Verdict.NOT_A_PROXY: "403", Verdict.NO_HEADER: ""}


def read_deliveries(moment: Moment) -> Samples:
    """By policy, and by what became of them."""
    for policy, counts in moment.statistics.deliveries.items():
        yield (policy.value, "sent"), counts.sent
        yield (policy.value, "dropped"), counts.dropped
        yield (policy.value, "unsent"), counts.unsent


def read_drops(moment: Moment) -> Samples:
    """By policy and cause."""
    for policy, counts in moment.statistics.deliveries.items():
        by_policy = counts.dropped - counts.dropped_for_memory - counts.dropped_for_silence
        yield (policy.value, SlowConsumer.OVERFLOW.value), by_policy
        yield (policy.value, SlowConsumer.MEMORY.value), counts.dropped_for_memory
        yield (policy.value, SlowConsumer.WRITE_TIMEOUT.value), counts.dropped_for_silence


def read_queued(moment: Moment) -> Samples:
    """By policy."""
    return (((policy.value,), counts.queued) for policy, counts in moment.statistics.deliveries.items())


def read_publications(moment: Moment) -> Samples:
    """By outcome."""
    return [(("published",), moment.meters.publications), (("failed",), moment.meters.failed_publications)]


def read_slow_consumers(moment: Moment) -> Samples:
    """By cause."""
    return (((cause.value,), moment.meters.slow_consumers[cause]) for cause in SlowConsumer)


def read_gaps(moment: Moment) -> Samples:
    """By reason."""
    return (((reason,), moment.meters.gaps[reason]) for reason in (*GAP_REASONS, OTHER))


def read_hooks(moment: Moment) -> Samples:
    """How long they ran, by hook."""
    return (((hook,), timing) for hook, timing in moment.meters.timings.hooks.items())


def read_gc_pauses(moment: Moment) -> Samples:
    """How long they took, by generation."""
    return (((str(generation),), pauses) for generation, pauses in enumerate(moment.vitals.gc_pauses))


def read_build(moment: Moment) -> Samples:
    """The versions, with a 1."""
    return [((moment.version, platform.python_version()), 1)]
