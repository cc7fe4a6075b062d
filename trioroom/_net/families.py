"""The families of metrics: what each is called, what it means and where its numbers are.

A table, which docs/reference/metrics.md repeats for the reader and a test holds to this one. Every label has a fixed
set of values; none of them comes from a peer.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING

import attrs

from trioroom._core.admission import Verdict
from trioroom._core.histogram import Histogram
from trioroom._core.meters import GAP_REASONS, OTHER, LinkMeters, Meters, Outcome
from trioroom._core.overflow import SlowConsumer
from trioroom._core.statistics import ServerStatistics

if TYPE_CHECKING:
    from trioroom._net.vitals import ProcessFigures, Vitals

PREFIX = "trioroom_"
WORKER = "worker"
"""The label that all have where several workers answer for one port."""

Value = float | Histogram
Samples = Iterable[tuple[tuple[str, ...], Value]]


class Kind(Enum):
    """What may be done with the numbers of a family."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


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


@attrs.frozen
class Family:
    """One name; its numbers differ in their labels."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...]
    read: Callable[[Moment], Samples]
    """Its numbers, each with the values of the labels."""


def _one(value: Callable[[Moment], Value | None]) -> Callable[[Moment], Samples]:
    """Reads a number that needs no label, and is left out where it is not known."""

    def read(moment: Moment) -> Samples:
        known = value(moment)
        return [] if known is None else [((), known)]

    return read


def _of_link(value: Callable[[LinkMeters], Value]) -> Callable[[Moment], Samples]:
    return _one(lambda moment: None if moment.link is None else value(moment.link))


def _connections(moment: Moment) -> Samples:
    spoken = ("plain", "v1.json", "v1.msgpack")
    return (((mode,), moment.meters.connections[mode]) for mode in spoken)


def _closed(moment: Moment) -> Samples:
    return (((code,), count) for code, count in moment.statistics.closed_connections.items())


def _handshakes(moment: Moment) -> Samples:
    yield ("accepted", "101"), moment.meters.opened
    always = {(Outcome.TIMED_OUT, 408): 0, (Outcome.FAILED, None): 0}
    for (outcome, status), count in {**always, **moment.meters.handshakes}.items():
        yield (outcome.value, "" if status is None else str(status)), count
    for verdict in Verdict:
        if verdict is not Verdict.ADMITTED:
            yield (verdict.value, _ANSWERED.get(verdict, "503")), moment.refused.get(verdict, 0)


_ANSWERED = {Verdict.NOT_A_PROXY: "403", Verdict.NO_HEADER: ""}


def _deliveries(moment: Moment) -> Samples:
    for policy, counts in moment.statistics.deliveries.items():
        yield (policy.value, "sent"), counts.sent
        yield (policy.value, "dropped"), counts.dropped
        yield (policy.value, "unsent"), counts.unsent


def _drops(moment: Moment) -> Samples:
    for policy, counts in moment.statistics.deliveries.items():
        by_policy = counts.dropped - counts.dropped_for_memory - counts.dropped_for_silence
        yield (policy.value, SlowConsumer.OVERFLOW.value), by_policy
        yield (policy.value, SlowConsumer.MEMORY.value), counts.dropped_for_memory
        yield (policy.value, SlowConsumer.WRITE_TIMEOUT.value), counts.dropped_for_silence


def _queued(moment: Moment) -> Samples:
    return (((policy.value,), counts.queued) for policy, counts in moment.statistics.deliveries.items())


def _publications(moment: Moment) -> Samples:
    return [(("published",), moment.meters.publications), (("failed",), moment.meters.failed_publications)]


def _slow_consumers(moment: Moment) -> Samples:
    return (((cause.value,), moment.meters.slow_consumers[cause]) for cause in SlowConsumer)


def _gaps(moment: Moment) -> Samples:
    return (((reason,), moment.meters.gaps[reason]) for reason in (*GAP_REASONS, OTHER))


def _hooks(moment: Moment) -> Samples:
    return (((hook,), timing) for hook, timing in moment.meters.timings.hooks.items())


def _gc_pauses(moment: Moment) -> Samples:
    return (((str(generation),), pauses) for generation, pauses in enumerate(moment.vitals.gc_pauses))


def _build(moment: Moment) -> Samples:
    return [((moment.version, platform.python_version()), 1)]


_GAUGE, _COUNTER, _HISTOGRAM = Kind.GAUGE, Kind.COUNTER, Kind.HISTOGRAM

CONNECTIONS = (
    Family("connections", _GAUGE, "WebSocket connections that are open.", ("mode",), _connections),
    Family("connections_opened_total", _COUNTER, "Accepted connections.", (), _one(lambda m: m.meters.opened)),
    Family("connections_closed_total", _COUNTER, "Connections that are over.", ("code",), _closed),
    Family(
        "handshakes_total", _COUNTER, "Peers that came, by what became of them.", ("outcome", "status"), _handshakes
    ),
    Family("peers_limit", _GAUGE, "Peers that may be there at a time.", (), _one(lambda m: m.max_connections)),
    Family("rooms", _GAUGE, "Rooms that are active.", (), _one(lambda m: m.statistics.rooms)),
    Family("members", _GAUGE, "Members of all rooms.", (), _one(lambda m: m.statistics.members)),
    Family("build_info", _GAUGE, "1, with the versions.", ("version", "python"), _build),
    Family("draining", _GAUGE, "1 while the server drains.", (), _one(lambda m: m.statistics.draining)),
)
MESSAGES = (
    Family(
        "messages_received_total",
        _COUNTER,
        "Messages of peers; requests, in v1.",
        (),
        _one(lambda m: m.meters.messages_received),
    ),
    Family(
        "received_bytes_total",
        _COUNTER,
        "Bytes from connections, inside TLS.",
        (),
        _one(lambda m: m.meters.received_bytes),
    ),
    Family("sent_bytes_total", _COUNTER, "Bytes to connections, inside TLS.", (), _one(lambda m: m.meters.sent_bytes)),
    Family("publications_total", _COUNTER, "Messages published here.", ("outcome",), _publications),
    Family(
        "deliveries_total", _COUNTER, "Messages times the members they were for.", ("policy", "outcome"), _deliveries
    ),
    Family("deliveries_queued", _GAUGE, "Of those, how many wait in outboxes.", ("policy",), _queued),
    Family("drops_total", _COUNTER, "Deliveries that were dropped, by why.", ("policy", "reason"), _drops),
    Family("slow_consumers_total", _COUNTER, "Connections closed with 4108, by why.", ("reason",), _slow_consumers),
    Family("gaps_total", _COUNTER, "Times that a room lost publications on their way here.", ("reason",), _gaps),
    Family(
        "queued_bytes", _GAUGE, "Memory of outboxes and room channels.", (), _one(lambda m: m.statistics.queued_bytes)
    ),
    Family("queued_bytes_limit", _GAUGE, "What that may be.", (), _one(lambda m: m.max_queued_bytes)),
    Family("outboxes", _GAUGE, "Connections for which something waits.", (), _one(lambda m: m.statistics.outboxes)),
)
WORK = (
    Family(
        "fanout_pass_seconds",
        _HISTOGRAM,
        "Passes of the fan-out, from the first member to the last.",
        (),
        _one(lambda m: m.meters.timings.passes),
    ),
    Family("fanout_batch_size", _HISTOGRAM, "Publications in each pass.", (), _one(lambda m: m.meters.timings.batches)),
    Family(
        "hook_seconds", _HISTOGRAM, "Calls of hooks that rooms have; one in sixteen of on_message.", ("hook",), _hooks
    ),
    Family(
        "event_loop_lag_seconds",
        _HISTOGRAM,
        "How late a task runs whose time it is.",
        (),
        _one(lambda m: m.vitals.loop_lag),
    ),
    Family(
        "event_loop_lag_max_seconds",
        _GAUGE,
        "The most of that in the last minute or two.",
        (),
        _one(lambda m: m.statistics.longest_loop_lag),
    ),
    Family("gc_pause_seconds", _HISTOGRAM, "Collections of the garbage collector.", ("generation",), _gc_pauses),
)
BACKPLANE = (
    Family(
        "backplane_up", _GAUGE, "1 while publications come through.", (), _one(lambda m: m.statistics.backplane_ready)
    ),
    Family(
        "backplane_outages_total", _COUNTER, "Times that the link went down.", (), _of_link(lambda link: link.outages)
    ),
    Family(
        "backplane_publish_seconds",
        _HISTOGRAM,
        "From a command to the broker's answer.",
        (),
        _of_link(lambda link: link.publishing),
    ),
    Family(
        "backplane_round_trip_seconds",
        _HISTOGRAM,
        "From a publication to its delivery here, by probes.",
        (),
        _of_link(lambda link: link.round_trips),
    ),
    Family(
        "backplane_batch_size",
        _HISTOGRAM,
        "Commands sent to the broker together.",
        (),
        _of_link(lambda link: link.batches),
    ),
)
PROCESS = (  # as all programs call them that Prometheus watches
    Family("process_cpu_seconds_total", _COUNTER, "CPU time of the process.", (),
           _one(lambda m: m.process.cpu_seconds)),
    Family("process_resident_memory_bytes", _GAUGE, "Memory of the process.", (),
           _one(lambda m: m.process.resident_bytes)),
    Family("process_open_fds", _GAUGE, "Its open files, connections included.", (),
           _one(lambda m: m.process.open_files)),
    Family("process_max_fds", _GAUGE, "How many it may open.", (), _one(lambda m: m.process.max_open_files)),
    Family("process_start_time_seconds", _GAUGE, "When it began, since 1970.", (),
           _one(lambda m: m.process.started_at)),
)  # fmt: skip
WORKER_UP = Family(f"{PREFIX}worker_up", _GAUGE, "1 if this worker has told its numbers.", (WORKER,), lambda _: ())
"""Only where there are several workers; all other families have their numbers as a label then."""
_OURS = (*CONNECTIONS, *MESSAGES, *WORK, *BACKPLANE)
FAMILIES = (*(attrs.evolve(family, name=PREFIX + family.name) for family in _OURS), *PROCESS)
