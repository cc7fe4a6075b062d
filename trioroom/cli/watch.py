"""From what nodes say to what `trioroom top` shows: rates from counts, totals, the largest rooms of all.

The dashboard's ``model.js`` does the same for its page.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from trioroom._core.snapshot import MAX_ROWS, NodeReport, Report, SlowConnection, Snapshot


@attrs.frozen
class NodeView:
    """A node; rates are None until it has been seen twice."""

    snapshot: Snapshot
    state: str
    age: float
    """Seconds since it said so."""
    received: float | None
    """Messages a second, from members."""
    deliveries: float | None
    dropped: float | None
    cpu: float | None
    """Of one core."""


@attrs.frozen
class RoomView:
    """A room on all nodes that tell of it."""

    name: str
    members: int
    waiting: int
    deliveries: float | None
    nodes: int


@attrs.frozen
class Totals:
    """Of all nodes that answer; what does not add up is that of the node that is worst off."""

    connections: int
    members: int
    rooms: int
    queued_bytes: int
    refused: int
    received: float | None
    deliveries: float | None
    dropped: float | None
    loop_lag: float | None
    cpu: float | None
    resident_bytes: float | None


@attrs.frozen
class View:
    """All of it."""

    totals: Totals
    nodes: list[NodeView]
    rooms: list[RoomView]
    slow: list[tuple[SlowConnection, str]]
    """With the label of the node."""


class _Meter:
    """The rates of one node, from one snapshot to the next; the same snapshot again changes nothing."""

    def __init__(self) -> None:
        self._before: tuple[float, dict[str, float]] | None = None
        self._rates: dict[str, float] = {}

    def update(self, snapshot: Snapshot) -> None:
        """Look at what the node says now."""
        if self._before is not None and snapshot.uptime <= self._before[0]:
            return
        counts = _counts_of(snapshot)
        if self._before is not None:
            seconds, earlier = snapshot.uptime - self._before[0], self._before[1]
            self._rates = {
                name: max(0.0, counts[name] - earlier[name]) / seconds for name in counts.keys() & earlier.keys()
            }
        self._before = snapshot.uptime, counts

    def rate(self, name: str) -> float | None:
        """Of what `_counts_of` calls so."""
        return self._rates.get(name)


def _counts_of(snapshot: Snapshot) -> dict[str, float]:
    return {
        "cpu": snapshot.cpu_seconds,
        "offered": float(sum(deliveries.offered for deliveries in snapshot.deliveries.values())),
        "dropped": float(sum(deliveries.dropped for deliveries in snapshot.deliveries.values())),
        "received": snapshot.messages_received,
        **{f"room {room.name}": float(room.offered) for room in snapshot.busy_rooms},
    }


class Watch:
    """Remembers of each node what rates need."""

    def __init__(self) -> None:
        self._meters: dict[str, _Meter] = {}

    def update(self, report: Report) -> View:
        """What is to be shown now."""
        self._meters = {node.snapshot.node: self._meters.get(node.snapshot.node) or _Meter() for node in report.nodes}
        for node in report.nodes:
            if not node.silent:
                self._meters[node.snapshot.node].update(node.snapshot)
        nodes = [self._view(node) for node in report.nodes]
        live = [node for node in nodes if node.state != "silent"]
        return View(_totals_of(live), nodes, self._rooms_of(live), _slow_of(live))

    def _view(self, node: NodeReport) -> NodeView:
        rate = self._meters[node.snapshot.node].rate
        rates = rate("received"), rate("offered"), rate("dropped"), rate("cpu")
        return NodeView(node.snapshot, _state_of(node), node.age, *rates)

    def _rooms_of(self, live: list[NodeView]) -> list[RoomView]:
        rooms: dict[str, RoomView] = {}
        for node in live:
            for told in node.snapshot.busy_rooms:
                room = rooms.get(told.name) or RoomView(told.name, 0, 0, None, 0)
                rate = self._meters[node.snapshot.node].rate(f"room {told.name}")
                rooms[told.name] = RoomView(
                    told.name,
                    room.members + told.members,
                    room.waiting + told.waiting,
                    _sum([room.deliveries, rate]),
                    room.nodes + 1,
                )
        return sorted(rooms.values(), key=lambda room: (-room.members, room.name))[:MAX_ROWS]


def _state_of(node: NodeReport) -> str:
    if node.silent:
        return "silent"
    if node.snapshot.draining:
        return "draining"
    return "up" if node.snapshot.backplane_ready else "cut off"


def _totals_of(live: list[NodeView]) -> Totals:
    snapshots = [node.snapshot for node in live]
    return Totals(
        connections=sum(each.connections for each in snapshots),
        members=sum(each.members for each in snapshots),
        rooms=sum(each.rooms for each in snapshots),
        queued_bytes=sum(each.queued_bytes for each in snapshots),
        refused=sum(each.refused_connections for each in snapshots),
        received=_sum(node.received for node in live),
        deliveries=_sum(node.deliveries for node in live),
        dropped=_sum(node.dropped for node in live),
        loop_lag=max((each.loop_lag for each in snapshots), default=None),
        cpu=max((node.cpu for node in live if node.cpu is not None), default=None),
        resident_bytes=_sum(each.resident_bytes for each in snapshots),
    )


def _slow_of(live: list[NodeView]) -> list[tuple[SlowConnection, str]]:
    slow = [(one, node.snapshot.label) for node in live for one in node.snapshot.slow_connections]
    return sorted(slow, key=lambda pair: (-pair[0].queued_bytes, pair[0].id))[:MAX_ROWS]


def _sum(values: Iterable[float | None]) -> float | None:
    """Of what is known; None when nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
