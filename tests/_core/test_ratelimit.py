from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom._core.ratelimit import Buckets, RateLimit


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


# -- a bucket for each -----------------------------------------------------------------------------


def test_time_until_a_token_is_told() -> None:
    limit = RateLimit(0.5, 2)
    assert limit.due_in(0.0, 100.0) == 0
    full_at = limit.spend(limit.spend(0.0, 100.0), 100.0)
    due_in = limit.due_in(full_at, 100.0)
    assert due_in == pytest.approx(2, abs=1e-5)
    assert limit.spend(full_at, 100.0 + due_in - 0.01) == math.inf
    assert limit.spend(full_at, 100.0 + due_in) < math.inf


def test_each_spender_has_a_bucket_of_its_own() -> None:
    buckets = Buckets(RateLimit(1.0, 2), 10)
    assert [buckets.spend("a", 0.0) for _ in range(3)] == [True, True, False]
    assert buckets.spend("b", 0.0)
    assert buckets.due_in("a", 0.0) == pytest.approx(1, abs=1e-5)
    assert buckets.due_in("b", 0.0) == 0
    assert buckets.due_in("never came", 0.0) == 0
    assert buckets.spend("a", 1.0)


def test_those_who_did_not_come_for_longest_go_first_when_there_are_too_many() -> None:
    buckets = Buckets(RateLimit(0.001, 1), 3)
    for spender in ("a", "b", "c"):
        assert buckets.spend(spender, 0.0)
    assert not buckets.spend("a", 1.0)
    assert buckets.spend("d", 1.0)
    assert len(buckets) == 3
    assert not buckets.spend("b", 1.0)
    assert not buckets.spend("c", 1.0)
    assert buckets.spend("a", 1.0), "it begins anew"


def test_who_has_a_full_bucket_again_costs_nothing() -> None:
    buckets = Buckets(RateLimit(10.0, 5), 1_000_000)
    for number in range(10_000):
        assert buckets.spend(str(number), number / 1_000)  # a thousand a second, full again after 0.1 s
        assert len(buckets) <= 110


def test_without_a_limit_nothing_is_kept() -> None:
    buckets = Buckets(RateLimit(math.inf, 1), 3)
    for spender in ("a", "a", "b"):
        assert buckets.spend(spender, 1.0)
        assert len(buckets) == 0


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([0.0, 0.1, 1.0, 3.0])), max_size=60),
)
def test_with_room_for_all_nobody_gets_more_than_alone(comings: list[tuple[str, float]]) -> None:
    limit = RateLimit(1.0, 2)
    buckets, alone = Buckets(limit, 100), dict.fromkeys("abcdef", 0.0)
    now = 0.0
    for spender, pause in comings:
        now += pause
        full_at = limit.spend(alone[spender], now)
        assert buckets.spend(spender, now) is (full_at < math.inf)
        if full_at < math.inf:
            alone[spender] = full_at
