"""Waits between tries: they grow, stay bounded, are spread, and start again after a good life."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trioroom._core.backoff import Backoff


def test_waits_double_up_to_the_bound() -> None:
    backoff = Backoff(first=0.5, most=3.0, settled=30.0)
    assert [backoff.after(lived=0.0, chance=1.0) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_good_life_begins_anew() -> None:
    backoff = Backoff(first=0.5, most=3.0, settled=30.0)
    for _ in range(5):
        backoff.after(lived=29.9, chance=1.0)
    assert backoff.after(lived=30.0, chance=1.0) == 0.5
    assert backoff.after(lived=0.0, chance=1.0) == 1.0


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1)), min_size=1, max_size=100))
def test_waits_are_spread_between_half_and_whole(tries: list[tuple[float, float]]) -> None:
    backoff = Backoff()
    for lived, chance in tries:
        assert backoff.first / 2 <= backoff.after(lived, chance) <= backoff.most


def test_thousands_of_failures_overflow_nothing() -> None:
    backoff = Backoff()
    assert [backoff.after(0.0, 0.0) for _ in range(5_000)][-1] == backoff.most / 2
