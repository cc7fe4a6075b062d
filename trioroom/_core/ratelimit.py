"""So many a second: a token bucket."""

from __future__ import annotations

import math
from collections import OrderedDict

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

    def due_in(self, full_at: float, now: float) -> float:
        """Seconds from ``now`` until the bucket that is to be full at ``full_at`` has a token."""
        return max(0.0, full_at + self._interval - self._emptied_in - now)


class Buckets:
    """Of one limit, a bucket for each of those who came lately.

    Args:
        max_spenders: how many are kept. Of more, those who did not come for longest begin anew with full buckets.
    """

    def __init__(self, limit: RateLimit, max_spenders: int) -> None:
        self._limit = limit
        self._max_spenders = max_spenders
        self._full_at: OrderedDict[str, float] = OrderedDict()  # who came last is last

    def __len__(self) -> int:
        return len(self._full_at)

    def spend(self, spender: str, now: float) -> bool:
        """Take a token from the bucket of ``spender``, if there is one."""
        full_at = self._limit.spend(self._full_at.get(spender, now), now)
        if full_at == math.inf:
            return False
        self._full_at[spender] = full_at
        self._full_at.move_to_end(spender)
        self._forget(now)
        return True

    def due_in(self, spender: str, now: float) -> float:
        """Seconds until there is one."""
        return self._limit.due_in(self._full_at.get(spender, now), now)

    def _forget(self, now: float) -> None:
        # Two for each that comes: so those whose buckets are full again, which is as good as new, are soon gone.
        for _ in range(2):
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now and len(self._full_at) <= self._max_spenders:
                break
            del self._full_at[oldest]
            if not self._full_at:
                break
