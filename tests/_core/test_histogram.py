from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom._core.histogram import COUNTS, SECONDS, Histogram, Peak


def test_value_counts_for_the_first_bound_that_it_does_not_pass() -> None:
    histogram = Histogram((1, 10))
    for value in (0, 1, 1.5, 10, 10.5, 1_000):
        histogram.observe(value)
    assert histogram.cumulative() == [2, 4, 6]
    assert (histogram.count, histogram.sum) == (6, 1_023)


@given(st.lists(st.floats(0, 100)))
def test_counts_are_those_of_who_looks_at_each_value(values: list[float]) -> None:
    histogram = Histogram(SECONDS)
    for value in values:
        histogram.observe(value)
    naive = [sum(value <= bound for value in values) for bound in SECONDS]
    assert histogram.cumulative() == [*naive, len(values)]
    assert histogram.sum == pytest.approx(sum(values))


@pytest.mark.parametrize("bounds", [SECONDS, COUNTS])
def test_bounds_ascend(bounds: tuple[float, ...]) -> None:
    assert sorted(set(bounds)) == list(bounds)


def test_histogram_shows_what_it_counted() -> None:
    histogram = Histogram((1, 10))
    histogram.observe(2.5)
    assert repr(histogram) == "<Histogram of 1, 2.5 in all>"


def test_peak_is_held_for_its_window_and_forgotten_after_two() -> None:
    peak = Peak(60.0)
    assert peak.value(7.0) == 0
    peak.note(0.5, 10.0)
    peak.note(0.2, 11.0)
    assert [peak.value(now) for now in (11.0, 59.9, 60.0, 119.9, 120.0)] == [0.5, 0.5, 0.5, 0.5, 0]
    peak.note(0.3, 1_000.0)
    assert [peak.value(now) for now in (1_001.0, 1_079.9, 1_080.0, 2_000.0)] == [0.3, 0.3, 0, 0]


def test_smaller_value_of_a_newer_window_takes_over() -> None:
    peak = Peak(60.0)
    peak.note(0.5, 10.0)
    peak.note(0.1, 70.0)
    assert peak.value(119.0) == 0.5
    assert peak.value(125.0) == 0.1
