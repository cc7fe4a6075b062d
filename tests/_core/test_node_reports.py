from __future__ import annotations

from tests._core.snapshots import make_snapshot
from trioroom._core.node_reports import SILENT_FOR, NodeReports
from trioroom._core.snapshot import Report


def told(report: Report) -> list[tuple[str, float, bool]]:
    return [(each.snapshot.node, each.age, each.silent) for each in report.nodes]


def test_nodes_are_told_by_their_labels() -> None:
    reports = NodeReports()
    nodes = [make_snapshot("b"), make_snapshot("c", label="another:1"), make_snapshot("a")]
    assert told(reports.update(5.0, nodes)) == [("c", 0.0, False), ("a", 0.0, False), ("b", 0.0, False)]


def test_node_that_does_not_answer_is_silent_and_then_gone() -> None:
    reports = NodeReports()
    reports.update(0.0, [make_snapshot("a"), make_snapshot("b")])
    assert told(reports.update(3.0, [make_snapshot("a")])) == [("a", 0.0, False), ("b", 3.0, True)]
    assert told(reports.update(SILENT_FOR - 0.1, [])) == [("a", SILENT_FOR - 3.1, True), ("b", SILENT_FOR - 0.1, True)]
    assert told(reports.update(SILENT_FOR, [])) == [("a", SILENT_FOR - 3.0, True)]


def test_node_that_answers_again_is_shown_as_it_is_now() -> None:
    reports = NodeReports()
    reports.update(0.0, [make_snapshot("a", connections=1)])
    reports.update(1.0, [])
    report = reports.update(2.0, [make_snapshot("a", connections=7)])
    assert told(report) == [("a", 0.0, False)]
    assert report.nodes[0].snapshot.connections == 7


def test_silent_nodes_are_bounded_and_the_latest_stay() -> None:
    reports = NodeReports()
    for number in range(300):  # a node that ends and starts again all the time
        report = reports.update(number / 1_000, [make_snapshot(f"{number:03}")])
    assert len(report.nodes) == 101
    assert {each.snapshot.node for each in report.nodes} == {f"{number:03}" for number in range(199, 300)}
