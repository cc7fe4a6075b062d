"""Who is dead, as far as one node can tell."""

from __future__ import annotations

from trioroom.backplane.kafka.presence_table import Node
from trioroom.backplane.kafka.presence_watch import Watch

LEASE = 30.0


def a_watch(*returns: float) -> Watch:
    watch = Watch(LEASE)
    watch.begin(0.0)
    for now in returns:
        watch.returned(now)
    return watch


def every_ten(until: int) -> list[float]:
    return [float(now) for now in range(0, until + 1, 10)]


def test_node_is_dead_when_it_was_not_heard_for_a_lease() -> None:
    watch, nodes = a_watch(*every_ten(50)), {"a": Node(heard=20.0), "b": Node(heard=45.0)}
    assert list(watch.silent(nodes, sent=50.0)) == []
    assert list(watch.silent(nodes, sent=50.1)) == ["a"]


def test_beat_that_was_sent_before_the_lease_was_over_proves_nothing() -> None:
    watch = a_watch(*every_ten(50), 60.0)
    assert list(watch.silent({"a": Node(heard=20.0)}, sent=49.0)) == []


def test_others_have_a_whole_lease_after_we_were_cut_off() -> None:
    watch, nodes = a_watch(*every_ten(20), 100.0), {"a": Node(heard=20.0)}
    assert list(watch.silent(nodes, sent=100.0)) == []
    for now in (110.0, 120.0, 130.0):
        watch.returned(now)
        assert list(watch.silent(nodes, sent=now)) == []
    assert list(watch.silent(nodes, sent=130.1)) == ["a"]


def test_late_beat_is_no_cut() -> None:
    watch = a_watch(*every_ten(40), 54.0)
    assert list(watch.silent({"a": Node(heard=20.0)}, sent=54.0)) == ["a"]


def test_who_is_dead_is_not_found_dead_again() -> None:
    watch = a_watch(*every_ten(90))
    assert list(watch.silent({"a": Node(heard=0.0, dead_since=40.0)}, sent=90.0)) == []


def test_next_beat_is_in_a_third_of_the_lease_or_when_somebody_should_have_been_heard() -> None:
    watch = a_watch(*every_ten(40))
    assert watch.due({"own": Node(0.0), "a": Node(heard=39.0)}, "own", 40.0) == 50.0
    assert 45.0 < watch.due({"a": Node(heard=15.0)}, "own", 40.0) < 45.5
    assert 40.0 < watch.due({"a": Node(heard=1.0)}, "own", 40.0) < 40.5, "not at once: that would be a busy loop"
    assert watch.due({"a": Node(heard=1.0, dead_since=39.0)}, "own", 40.0) == 50.0
