"""The families of metrics: what each is called, what it means and where its numbers are.

A table, which docs/reference/metrics.md repeats for the reader and a test holds to this one.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import attrs

from trioroom._core.meters import LinkMeters
from trioroom._net import moment
from trioroom._net.moment import Moment, Samples, Value

PREFIX = "trioroom_"
WORKER = "worker"
"""The label that all have where several workers answer for one port."""


class Kind(Enum):
    """What may be done with the numbers of a family."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


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

    def read(at: Moment) -> Samples:
        known = value(at)
        return [] if known is None else [((), known)]

    return read


def _of_link(value: Callable[[LinkMeters], Value]) -> Callable[[Moment], Samples]:
    return _one(lambda at: None if at.link is None else value(at.link))


_GAUGE, _COUNTER, _HISTOGRAM = Kind.GAUGE, Kind.COUNTER, Kind.HISTOGRAM

CONNECTIONS = (
    Family(
        "connections",
        _GAUGE,
        "WebSocket connections that are open, by what they speak.",
        ("mode",),
        moment.read_connections,
    ),
    Family(
        "connections_opened_total", _COUNTER, "Connections that were accepted.", (), _one(lambda m: m.meters.opened)
    ),
    Family(
        "connections_closed_total",
        _COUNTER,
        "Connections that are over, by their close code.",
        ("code",),
        moment.read_closed,
    ),
    Family(
        "handshakes_total",
        _COUNTER,
        "Peers that came, by what became of them and the HTTP status they got.",
        ("outcome", "status"),
        moment.read_handshakes,
    ),
    Family(
        "peers_limit",
        _GAUGE,
        "Peers that may be there at a time, those in the handshake too (max_connections).",
        (),
        _one(lambda m: m.max_connections),
    ),
    Family("rooms", _GAUGE, "Rooms that are active.", (), _one(lambda m: m.statistics.rooms)),
    Family("members", _GAUGE, "Members of all rooms, joining ones included.", (), _one(lambda m: m.statistics.members)),
    Family("build_info", _GAUGE, "1, with the versions.", ("version", "python"), moment.read_build),
    Family("draining", _GAUGE, "1 while the server drains.", (), _one(lambda m: m.statistics.draining)),
)
MESSAGES = (
    Family(
        "messages_received_total",
        _COUNTER,
        "Messages that came from peers; in v1 requests of any kind.",
        (),
        _one(lambda m: m.meters.messages_received),
    ),
    Family(
        "received_bytes_total",
        _COUNTER,
        "Bytes that came from connections, after the handshake and without TLS.",
        (),
        _one(lambda m: m.meters.received_bytes),
    ),
    Family(
        "sent_bytes_total",
        _COUNTER,
        "Bytes that went to connections, after the handshake and without TLS.",
        (),
        _one(lambda m: m.meters.sent_bytes),
    ),
    Family(
        "publications_total",
        _COUNTER,
        "Messages that were published on this server, by whether the backplane has taken them.",
        ("outcome",),
        moment.read_publications,
    ),
    Family(
        "deliveries_total",
        _COUNTER,
        "Messages times the members that they were for, by the policy of the room and what became of them.",
        ("policy", "outcome"),
        moment.read_deliveries,
    ),
    Family(
        "deliveries_queued",
        _GAUGE,
        "Messages times members that wait in outboxes now, by the policy of the room.",
        ("policy",),
        moment.read_queued,
    ),
    Family(
        "drops_total",
        _COUNTER,
        "Deliveries that were dropped because a member did not keep up, by the policy of the room and the reason.",
        ("policy", "reason"),
        moment.read_drops,
    ),
    Family(
        "slow_consumers_total",
        _COUNTER,
        "Connections that were closed with 4108, by the reason.",
        ("reason",),
        moment.read_slow_consumers,
    ),
    Family(
        "gaps_total",
        _COUNTER,
        "Times that a room has lost publications on their way to this server, which its members were told.",
        ("reason",),
        moment.read_gaps,
    ),
    Family(
        "queued_bytes",
        _GAUGE,
        "Memory of all that waits: outboxes, room channels and cached history.",
        (),
        _one(lambda m: m.statistics.queued_bytes),
    ),
    Family(
        "queued_bytes_limit",
        _GAUGE,
        "What that may be at most (max_queued_bytes).",
        (),
        _one(lambda m: m.max_queued_bytes),
    ),
    Family(
        "outboxes",
        _GAUGE,
        "Connections for which something waits, and members that join.",
        (),
        _one(lambda m: m.statistics.outboxes),
    ),
)
WORK = (
    Family(
        "fanout_pass_seconds",
        _HISTOGRAM,
        "How long a pass of the fan-out takes, from the first member of the room to the last.",
        (),
        _one(lambda m: m.meters.timings.passes),
    ),
    Family(
        "fanout_batch_size",
        _HISTOGRAM,
        "How many publications one pass of the fan-out carries.",
        (),
        _one(lambda m: m.meters.timings.batches),
    ),
    Family(
        "hook_seconds",
        _HISTOGRAM,
        "How long hooks take, of rooms that have them; one in sixteen calls of on_message is timed.",
        ("hook",),
        moment.read_hooks,
    ),
    Family(
        "event_loop_lag_seconds",
        _HISTOGRAM,
        "How late the event loop runs a task whose time has come.",
        (),
        _one(lambda m: m.vitals.loop_lag),
    ),
    Family(
        "event_loop_lag_max_seconds",
        _GAUGE,
        "The longest such delay in the last minute or two.",
        (),
        _one(lambda m: m.statistics.longest_loop_lag),
    ),
    Family(
        "tasks",
        _GAUGE,
        "Tasks that the event loop has: one of each connection and room, a few of the server, and the application's.",
        (),
        _one(lambda m: m.vitals.tasks),
    ),
    Family(
        "gc_pause_seconds",
        _HISTOGRAM,
        "How long the garbage collector stops everything, by the generation it collects.",
        ("generation",),
        moment.read_gc_pauses,
    ),
)
BACKPLANE = (
    Family(
        "backplane_up",
        _GAUGE,
        "1 while publications come through, as /readyz says.",
        (),
        _one(lambda m: m.statistics.backplane_ready),
    ),
    Family(
        "backplane_outages_total",
        _COUNTER,
        "Times that the link to the broker went down after it had been up.",
        (),
        _of_link(lambda link: link.outages),
    ),
    Family(
        "backplane_publish_seconds",
        _HISTOGRAM,
        "How long the broker takes to answer a command such as a publication; of those answered together the first.",
        (),
        _of_link(lambda link: link.publishing),
    ),
    Family(
        "backplane_round_trip_seconds",
        _HISTOGRAM,
        "How long a publication takes to come round through the broker, as probes find it.",
        (),
        _of_link(lambda link: link.round_trips),
    ),
    Family(
        "backplane_batch_size",
        _HISTOGRAM,
        "How many commands are sent to the broker together.",
        (),
        _of_link(lambda link: link.batches),
    ),
)
PROCESS = (  # as all programs call them that Prometheus watches
    Family("process_cpu_seconds_total", _COUNTER, "CPU time that the process has used, in user and kernel mode.", (),
           _one(lambda m: m.process.cpu_seconds)),
    Family("process_resident_memory_bytes", _GAUGE, "Memory of the process that is resident.", (),
           _one(lambda m: m.process.resident_bytes)),
    Family("process_open_fds", _GAUGE, "Files that the process has open; each connection is one.", (),
           _one(lambda m: m.process.open_files)),
    Family("process_max_fds", _GAUGE, "Files that it may have open.", (), _one(lambda m: m.process.max_open_files)),
    Family("process_start_time_seconds", _GAUGE, "When the process began, in seconds since 1970.", (),
           _one(lambda m: m.process.started_at)),
)  # fmt: skip
WORKER_UP = Family(
    f"{PREFIX}worker_up",
    _GAUGE,
    "1 if this worker has told its numbers, 0 if it did not answer.",
    (WORKER,),
    lambda _: (),
)
"""Only where there are several workers; all other families have their numbers as a label then."""
_OURS = (*CONNECTIONS, *MESSAGES, *WORK, *BACKPLANE)
FAMILIES = (*(attrs.evolve(family, name=PREFIX + family.name) for family in _OURS), *PROCESS)
