"""What a node says of itself to those who watch: a record of one moment, small enough to be asked for each second.

It goes to browsers and to other nodes as JSON of less than `MAX_BYTES`, however many rooms and connections there are
and whatever they are called.
"""

from __future__ import annotations

import msgspec

from trioroom._core.statistics import Deliveries

FORMAT = 1
"""Another one when what is here now changes its meaning, or goes; more may come without it."""
MAX_BYTES = 64 << 10
MAX_ROWS = 20
"""Rooms, and connections."""
_MAX_NAME = 200  # characters; rooms may be called anything up to ``max_room_name_bytes``


class BusyRoom(msgspec.Struct, frozen=True):
    """One of the rooms that are largest, busiest, or furthest behind."""

    name: str
    """Its first characters, if there are many."""
    members: int
    """On this node."""
    waiting: int
    """Publications that wait for the fan-out."""
    offered: int
    """Messages times members, since the room was opened."""


class SlowConnection(msgspec.Struct, frozen=True):
    """One of the connections for which most waits."""

    id: str
    """As in the log, and in the members' `Member.id`."""
    messages: int
    """That wait for it."""
    queued_bytes: int
    age: float
    """Seconds that the oldest of them has waited."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A node; what counts, counts since it was opened. None is what its system does not tell, or what has no bound."""

    format: int = FORMAT
    node: str
    """Its id, another one each time it starts."""
    label: str
    """For people: the host's name and the process."""
    version: str
    """Of trioroom."""
    time: float
    """Seconds since 1970."""
    uptime: float
    """Seconds since it was opened: the time that rates are of, as no clock is set meanwhile."""
    draining: bool
    """It is about to end."""
    backplane_ready: bool
    """Publications come through."""
    connections: int
    max_connections: int | None
    refused_connections: int
    """Connections that found as many as there may be, in all or from their address."""
    rooms: int
    members: int
    """Of all rooms, joining ones included."""
    messages_received: int
    """From peers; requests, in v1."""
    deliveries: dict[str, Deliveries]
    """By the policy of the rooms."""
    queued_bytes: int
    """Memory of all that waits."""
    max_queued_bytes: int | None
    loop_lag: float
    """Seconds that the event loop came late at most, lately."""
    cpu_seconds: float
    resident_bytes: int | None
    open_files: int | None
    max_open_files: int | None
    busy_rooms: list[BusyRoom]
    slow_connections: list[SlowConnection]


class NodeReport(msgspec.Struct, frozen=True):
    """A node as another one knows it."""

    snapshot: Snapshot
    age: float
    """Seconds since it said so."""
    silent: bool
    """It has been asked again since then, and has not answered."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What ``/_/nodes.json`` holds."""

    format: int = FORMAT
    nodes: list[NodeReport]


def clip(name: str) -> str:
    """``name`` as a row shows it."""
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"
