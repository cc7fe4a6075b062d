"""Times counted in fixed buckets, so that what several processes measured can be added up.

A time is taken in whole microseconds. Below 128 each has a bucket of its own; above that a bucket is a 64th of its
power of two wide, so a quantile is at most 1.6 per cent below the truth. The shape is that of HdrHistogram.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

_LINEAR = 128
_STEPS = 64  # buckets of a power of two
_OCTAVES = 25  # above the linear part: up to 2 ** 32 microseconds, more than an hour
_BUCKETS = _LINEAR + _OCTAVES * _STEPS
_LONGEST = (1 << 32) - 1


def bucket_of(microseconds: int) -> int:
    """The number of the bucket that such a time is counted in."""
    if microseconds < _LINEAR:
        return max(0, microseconds)
    shift = min(microseconds, _LONGEST).bit_length() - 7
    return shift * _STEPS + (min(microseconds, _LONGEST) >> shift)


def start_of(bucket: int) -> int:
    """The shortest time of a bucket, in microseconds."""
    if bucket < _LINEAR:
        return bucket
    shift = bucket // _STEPS - 1
    return (bucket - shift * _STEPS) << shift


@attrs.define
class Histogram:
    """Owned by one process while it measures; pickled when it is done."""

    total: int = 0
    longest: float = 0.0
    """In seconds, exact."""
    _counts: list[int] = attrs.field(factory=lambda: [0] * _BUCKETS)

    def add(self, seconds: float, times: int = 1) -> None:
        """So many took so long."""
        self.total += times
        if seconds > self.longest:
            self.longest = seconds
        self._counts[bucket_of(int(seconds * 1e6))] += times

    def merge(self, other: Histogram) -> None:
        """Count what ``other`` has counted too."""
        self.total += other.total
        self.longest = max(self.longest, other.longest)
        for bucket, count in enumerate(other._counts):
            self._counts[bucket] += count

    def quantile(self, share: float) -> float:
        """Seconds that ``share`` of all took at most, rounded down to a bucket's start; 0.0 of none at all."""
        if share >= 1.0:
            return self.longest
        wanted, seen = share * self.total, 0
        for start, count in self.buckets():
            seen += count
            if seen >= wanted:
                return start
        return self.longest

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Start in seconds and count of each bucket that has any, shortest first."""
        for bucket, count in enumerate(self._counts):
            if count:
                yield start_of(bucket) / 1e6, count
