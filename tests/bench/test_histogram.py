from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom.bench.histogram import Histogram, bucket_of, start_of

TIMES = st.lists(st.floats(0.0, 4_000.0), min_size=1, max_size=200)


def histogram_of(times: list[float]) -> Histogram:
    histogram = Histogram()
    for seconds in times:
        histogram.add(seconds)
    return histogram


@given(st.integers(0, (1 << 32) - 1))
def test_bucket_begins_at_most_a_64th_below_what_it_counts(microseconds: int) -> None:
    start = start_of(bucket_of(microseconds))
    assert start <= microseconds
    assert microseconds - start <= microseconds / 64


def test_buckets_follow_each_other_without_a_gap() -> None:
    for bucket in range(1, bucket_of((1 << 32) - 1) + 1):
        assert bucket_of(start_of(bucket)) == bucket
        assert bucket_of(start_of(bucket) - 1) == bucket - 1


def test_time_beyond_the_last_bucket_is_counted_in_it() -> None:
    assert bucket_of(1 << 40) == bucket_of((1 << 32) - 1)
    assert histogram_of([1e9]).quantile(1.0) == 1e9
    assert bucket_of(-1) == 0  # a clock that two processors do not agree upon


@given(TIMES, st.sampled_from([0.01, 0.5, 0.9, 0.99]))
def test_quantile_is_at_most_a_64th_and_a_microsecond_below_the_truth(times: list[float], share: float) -> None:
    truth = sorted(times)[max(0, math.ceil(share * len(times)) - 1)]
    found = histogram_of(times).quantile(share)
    assert found <= truth
    assert truth - found <= truth / 64 + 2e-6


@given(TIMES, TIMES)
def test_merged_histograms_are_one_of_all_times(some: list[float], others: list[float]) -> None:
    merged = histogram_of(some)
    merged.merge(histogram_of(others))
    assert merged == histogram_of(some + others)


def test_times_can_be_added_many_at_once() -> None:
    at_once = Histogram()
    at_once.add(0.25, times=3)
    assert at_once == histogram_of([0.25] * 3)
    ((start, times),) = at_once.buckets()
    assert start == pytest.approx(0.25, rel=1 / 64)
    assert times == 3


def test_empty_histogram_has_no_times() -> None:
    assert Histogram().quantile(0.5) == 0.0
    assert Histogram().quantile(1.0) == 0.0
    assert not list(Histogram().buckets())
