"""From what nodes say to what is shown; tests/dashboard/model.test.mjs has the same for the page."""

from __future__ import annotations

import attrs
import pytest

from tests._core.snapshots import make_snapshot
from trioroom._core.snapshot import BusyRoom, NodeReport, Report, SlowConnection, Snapshot
from trioroom._core.statistics import Deliveries
from trioroom.cli.watch import RoomView, Watch


def report(*snapshots: Snapshot) -> Report:
    return Report(nodes=[NodeReport(snapshot, 0.0, False) for snapshot in snapshots])


def deliveries(offered: int, dropped: int = 0) -> dict[str, Deliveries]:
    return {"disconnect": Deliveries(offered, offered, 0, dropped, 0, 0), "latest": Deliveries(0, 0, 0, 0, 0, 0)}


def test_counts_become_rates_by_the_nodes_own_time() -> None:
    watch = Watch()
    before = watch.update(
        report(make_snapshot("a", uptime=10.0, messages_received=100, cpu_seconds=3.0, deliveries=deliveries(50)))
    )
    assert before.totals.received is None
    after = watch.update(
        report(make_snapshot("a", uptime=12.0, messages_received=130, cpu_seconds=4.0, deliveries=deliveries(90, 4)))
    )
    totals = after.totals
    assert (totals.received, totals.deliveries, totals.dropped, totals.cpu) == (15, 20, 2, 0.5)
    again = watch.update(
        report(make_snapshot("a", uptime=12.0, messages_received=130, cpu_seconds=4.0, deliveries=deliveries(90, 4)))
    )
    assert again == after


def test_totals_add_what_adds_up_and_take_the_worst_of_what_does_not() -> None:
    a = make_snapshot("a", connections=3, loop_lag=0.5, resident_bytes=10)
    b = make_snapshot("b", connections=2, loop_lag=0.1, resident_bytes=None)
    totals = Watch().update(report(a, b)).totals
    assert (totals.connections, totals.loop_lag, totals.resident_bytes) == (5, 0.5, 10)


def test_node_that_comes_adds_no_burst() -> None:
    watch = Watch()
    watch.update(report(make_snapshot("a", uptime=1.0, messages_received=0)))
    newcomer = make_snapshot("b", messages_received=1_000_000)
    assert watch.update(report(make_snapshot("a", uptime=2.0, messages_received=10), newcomer)).totals.received == 10


def test_silent_node_is_shown_and_not_counted() -> None:
    silent = NodeReport(make_snapshot("b", connections=10), 4.0, True)
    view = Watch().update(Report(nodes=[NodeReport(make_snapshot("a", connections=1), 0.0, False), silent]))
    assert view.totals.connections == 1
    assert [(node.state, node.age) for node in view.nodes] == [("up", 0.0), ("silent", 4.0)]


@pytest.mark.parametrize(
    ("changed", "state"), [({"draining": True}, "draining"), ({"backplane_ready": False}, "cut off"), ({}, "up")]
)
def test_node_has_a_state(changed: dict[str, bool], state: str) -> None:
    assert Watch().update(report(make_snapshot("a", **changed))).nodes[0].state == state


def test_rooms_of_one_name_are_one_and_the_largest_comes_first() -> None:
    watch = Watch()

    def nodes(uptime: float, offered: int) -> Report:
        on_a = [BusyRoom("x", 1, 1, offered), BusyRoom("y", 2, 1, 0)]
        on_b = [BusyRoom("x", 5, 1, offered)]
        return report(
            make_snapshot("a", uptime=uptime, busy_rooms=on_a), make_snapshot("b", uptime=uptime, busy_rooms=on_b)
        )

    assert watch.update(nodes(1.0, 0)).rooms[0].deliveries is None
    assert watch.update(nodes(2.0, 6)).rooms == [RoomView("x", 6, 2, 12.0, 2), RoomView("y", 2, 1, 0.0, 1)]


def test_slow_connections_of_all_nodes_are_told_with_the_node() -> None:
    a = make_snapshot("a", slow_connections=[SlowConnection("1", 1, 10, 1.0), SlowConnection("2", 1, 5, 1.0)])
    b = make_snapshot("b", slow_connections=[SlowConnection("3", 1, 7, 1.0)])
    assert [(one.id, node) for one, node in Watch().update(report(a, b)).slow] == [
        ("1", "host:a"),
        ("3", "host:b"),
        ("2", "host:a"),
    ]


def test_nothing_is_remembered_of_nodes_that_are_gone() -> None:
    watch = Watch()
    for number in range(100):
        watch.update(report(make_snapshot(str(number))))
    assert len(watch._meters) == 1


def test_no_nodes_are_no_figures() -> None:
    view = Watch().update(report())
    assert attrs.asdict(view.totals)["connections"] == 0
    assert view.totals.deliveries is None
