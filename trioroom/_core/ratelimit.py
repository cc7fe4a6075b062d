"""So many a second: a token bucket."""

from __future__ import annotations

import math

_ROUNDING = 1e-6  # seconds, far above the error of adding up times, far below what a token takes to come back


class RateLimit:
    """A bucket of ``burst`` tokens that ``rate`` a second fill again; an infinite ``rate`` is no limit.

    It serves any number of spenders. The state of each is one number, which it keeps: the time at which its bucket
    will be full again, and at first any time that is past (this form is known as the generic cell rate algorithm).
    """

    __slots__ = ("_emptied_in", "_interval")

    def __init__(self, rate: float, burst: float) -> None:
        self._interval = 1 / rate
        self._emptied_in = 0.0 if math.isinf(rate) else burst / rate + _ROUNDING

    def spend(self, full_at: float, now: float, tokens: int = 1) -> float:
        """When the bucket that was to be full at ``full_at`` will be, now that ``tokens`` are taken from it.

        ``math.inf`` if there were not so many in it.
        """
        full_at = max(full_at, now) + tokens * self._interval
        return full_at if full_at - now <= self._emptied_in else math.inf
