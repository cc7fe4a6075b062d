"""Counts of values by size, cheap enough to keep while serving: a bisection and two additions for each value."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Bounds for what takes time: half a decade apart, as each is a line for each histogram of each scrape."""
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Bounds for what goes together: up to what a pass of the fan-out takes."""


class Histogram:
    """How many values there were up to each of its bounds, which ascend, and what all came to."""

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.sum: float = 0
        """Of all values."""
        self._counts = [0] * (len(bounds) + 1)

    def __repr__(self) -> str:
        return f"<Histogram of {self.count}, {self.sum:g} in all>"

    def observe(self, value: float) -> None:
        """One value more."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    def cumulative(self) -> list[int]:
        """How many were at most each bound; in the end, all of them."""
        return list(accumulate(self._counts))


class Peak:
    """The largest value of the last while. Who asks changes nothing: several may watch.

    Args:
        window: seconds for which a value counts at least; it may do for twice as many.
    """

    __slots__ = ("_before", "_current", "_since", "_window")

    def __init__(self, window: float) -> None:
        self._window = window
        self._since = 0.0  # when the current window began
        self._current = self._before = 0.0

    def note(self, value: float, now: float) -> None:
        """A value, not negative, of this moment."""
        self._turn(now)
        self._current = max(self._current, value)

    def value(self, now: float) -> float:
        """The largest; 0 if there was none."""
        self._turn(now)
        return max(self._current, self._before)

    def _turn(self, now: float) -> None:
        passed = (now - self._since) // self._window
        if passed >= 1:
            self._before = self._current if passed == 1 else 0.0
            self._current = 0.0
            self._since += passed * self._window
