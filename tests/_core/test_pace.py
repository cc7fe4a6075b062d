"""Who is closed when, and comes back when: evenly, and with time left to part."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom._core.pace import TICK, Pace, plan_pace


def ticks_of(pace: Pace) -> list[int]:
    """The slice in which each is closed."""
    ticks: list[int] = []
    tick = 0
    while len(ticks) < pace.peers:
        ticks += [tick] * (pace.due(tick) - len(ticks))
        tick += 1
    return ticks


def slots_of(pace: Pace) -> list[tuple[float, float]]:
    """From the beginning of the drain."""
    slots = []
    for number, tick in enumerate(ticks_of(pace)):
        first, last = pace.after(number, tick * TICK)
        slots.append((tick * TICK + first, tick * TICK + last))
    return slots


def test_few_are_closed_at_once_and_come_back_at_once() -> None:
    pace = plan_pace(10, rate=1_000, timeout=10, close_timeout=5)
    assert pace.due(0) == 10
    assert slots_of(pace)[0] == (0.0, TICK)
    assert max(last for _, last in slots_of(pace)) <= 10 / 1_000 + TICK


def test_each_is_closed_as_its_slot_begins() -> None:
    pace = plan_pace(3_000, rate=1_000, timeout=10, close_timeout=5)
    assert pace.closing == pace.returning == 3
    assert Counter(ticks_of(pace)) == dict.fromkeys(range(60), 50)
    assert max(pace.after(number, tick * TICK)[0] for number, tick in enumerate(ticks_of(pace))) <= TICK
    assert slots_of(pace)[1_500] == pytest.approx((1.5, 1.5 + TICK))


def test_slots_go_on_when_all_are_closed() -> None:
    pace = plan_pace(8_000, rate=1_000, timeout=10, close_timeout=5)
    assert (pace.closing, pace.returning) == (5, 8)
    slots = slots_of(pace)
    assert Counter(int(first + 1e-6) for first, _ in slots) == dict.fromkeys(range(8), 1000)
    assert pace.after(7_999, 4.95)[0] == pytest.approx(3.05, abs=0.01)


def test_slots_do_not_go_beyond_the_deadline() -> None:
    pace = plan_pace(1_000_000, rate=1_000, timeout=10, close_timeout=3)
    assert (pace.closing, pace.returning) == (7, 10)


def test_half_the_time_is_left_for_closing_at_least() -> None:
    assert plan_pace(1_000_000, rate=1, timeout=10, close_timeout=600).closing == 5


def test_who_is_closed_late_does_not_wait_for_a_slot_that_has_begun() -> None:
    assert plan_pace(3_000, rate=1_000, timeout=10, close_timeout=5).after(1_000, 2.0) == (0.0, TICK)


@pytest.mark.parametrize(("rate", "timeout", "closing"), [(math.inf, 10, 0), (100, math.inf, 50)])
@pytest.mark.parametrize("close_timeout", [5, math.inf])
def test_without_a_bound(rate: float, timeout: float, close_timeout: float, closing: float) -> None:
    pace = plan_pace(5_000, rate=rate, timeout=timeout, close_timeout=close_timeout)
    assert (pace.closing, pace.returning) == (min(closing, timeout / 2), closing)
    assert slots_of(pace)[-1][0] <= closing


def test_nobody_is_closed_in_no_time() -> None:
    assert plan_pace(0, rate=1_000, timeout=10, close_timeout=5).due(0) == 0


@given(
    peers=st.integers(1, 5_000),
    rate=st.floats(1, 1e5),
    timeout=st.floats(0.1, 30),
    close_timeout=st.floats(0.01, 100),
)
def test_slots_are_even_and_end_in_time(peers: int, rate: float, timeout: float, close_timeout: float) -> None:
    pace = plan_pace(peers, rate=rate, timeout=timeout, close_timeout=close_timeout)
    ticks, slots = ticks_of(pace), slots_of(pace)
    assert ticks == sorted(ticks)
    assert ticks[-1] * TICK <= timeout - min(close_timeout, timeout / 2)
    ideal = [number / peers * pace.returning for number in range(peers)]
    # A slot begins when it should, or with the slice, which is up to a tick earlier.
    assert all(-0.001 <= first - even <= 0.001 for (first, _), even in zip(slots, ideal, strict=True))
    assert all(last <= timeout + TICK + 0.001 for _, last in slots)
