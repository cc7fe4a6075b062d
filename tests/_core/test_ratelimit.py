from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom._core.ratelimit import RateLimit


def spend_all(limit: RateLimit, at: list[float], tokens: int = 1) -> list[bool]:
    """Which of the attempts at these times find their tokens; one that does not takes none."""
    full_at = -math.inf
    granted = []
    for now in at:
        after = limit.spend(full_at, now, tokens)
        granted.append(after != math.inf)
        if granted[-1]:
            full_at = after
    return granted


def test_burst_is_granted_at_once_and_then_the_rate() -> None:
    assert spend_all(RateLimit(2, 3), [0, 0, 0, 0, 0.25, 0.5, 0.75, 1.0]) == [True] * 3 + [
        False,
        False,
        True,
        False,
        True,
    ]


def test_idle_time_saves_up_no_more_than_the_burst() -> None:
    assert spend_all(RateLimit(10, 2), [0, 1_000, 1_000, 1_000]) == [True, True, True, False]


def test_several_tokens_are_had_together_or_not_at_all() -> None:
    assert spend_all(RateLimit(1, 5), [0, 0, 1, 4, 4], tokens=3) == [True, False, True, True, False]


def test_more_than_the_burst_is_never_had_at_once() -> None:
    assert spend_all(RateLimit(1, 5), [0, 1_000_000], tokens=6) == [False, False]


def test_one_token_a_time_suffices_for_a_burst_of_one() -> None:
    assert spend_all(RateLimit(4, 1), [0, 0.25, 0.5, 0.6, 0.75]) == [True, True, True, False, True]


def test_infinite_rate_is_no_limit() -> None:
    assert all(spend_all(RateLimit(math.inf, 1), [0] * 100, tokens=1_000))


@pytest.mark.parametrize("burst", [1, 7, 100])
@given(
    rate=st.sampled_from([0.5, 1.0, 2.0, 16.0]),
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=40),
)
def test_it_grants_what_a_bucket_of_tokens_grants(burst: int, rate: float, steps: list[tuple[int, int]]) -> None:
    """Times and rates are powers of two, so that neither side rounds."""
    limit, full_at, now = RateLimit(rate, burst), -math.inf, 0.0
    bucket = float(burst)
    for eighths, tokens in steps:
        now += eighths / 8
        bucket = min(burst, bucket + rate * eighths / 8)
        after = limit.spend(full_at, now, tokens)
        assert (after != math.inf) is (bucket >= tokens)
        if bucket >= tokens:
            bucket -= tokens
            full_at = after
