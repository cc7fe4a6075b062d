from __future__ import annotations

import math

import msgspec

from tests._core.snapshots import make_snapshot
from trioroom._core.overflow import Overflow
from trioroom._core.snapshot import MAX_BYTES, MAX_ROWS, BusyRoom, NodeReport, Report, SlowConnection, Snapshot, clip
from trioroom._core.statistics import Deliveries

LARGE = 2**63


def test_goes_through_json_and_back() -> None:
    snapshot = make_snapshot("a")
    report = Report(nodes=[NodeReport(snapshot, 0.5, True)])
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_is_small_whatever_rooms_are_called_and_however_much_there_is() -> None:
    name = clip('"\\\U0001f600' * 10_000)  # two that JSON doubles, and one of four bytes
    snapshot = make_snapshot(
        "f" * 16,
        label="h" * 253 + ":4194304",
        deliveries={policy.value: Deliveries(*[LARGE] * 6) for policy in Overflow},
        busy_rooms=[BusyRoom(name, LARGE, LARGE, LARGE)] * MAX_ROWS,
        slow_connections=[SlowConnection("f" * 16, LARGE, LARGE, 1 / 3)] * MAX_ROWS,
    )
    assert len(msgspec.json.encode(snapshot)) < MAX_BYTES / 2


def test_what_a_newer_node_says_besides_is_passed_over() -> None:
    said = msgspec.to_builtins(make_snapshot("a"))
    said["mood"] = "good"
    assert msgspec.convert(said, Snapshot) == make_snapshot("a")


def test_long_names_show_their_beginning() -> None:
    assert clip("a" * 200) == "a" * 200
    assert clip("a" * 201) == "a" * 199 + "…"


def test_json_has_words_for_all_of_it() -> None:
    assert math.inf not in msgspec.to_builtins(make_snapshot("a")).values()
