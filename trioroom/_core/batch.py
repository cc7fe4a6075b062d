"""Frames that go out together, encoded once and shared by every outbox that holds some of them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from itertools import accumulate

import msgspec

from trioroom._core.budget import Budget
from trioroom._core.overflow import Feed

BATCH_BYTES = 185
"""What a batch takes beside its data, charged to the budget; measured, as the next ones are."""
FRAME_BYTES = 36
"""What it takes for each of its frames."""
KEY_BYTES = 120
"""And for each that has a key, for the policy that asks for those has batches of one frame."""
ENTRY_BYTES = 92
"""What each entry takes that refers to it."""


class Batch(msgspec.Struct, gc=False, eq=False):
    """Whole frames of one feed. Get it from `batch_of` or `single`; what is not fan-out's is the outboxes' own.

    Outside of the garbage collector, as are the entries that refer to it: with a million of them waiting a full
    collection would stop the server for a second, and there is no cycle to find.
    """

    feed: Feed
    data: bytes
    ends: Sequence[int]
    """Where each frame ends in ``data``."""
    keys: Sequence[Hashable | None] | None = None
    """What each message is the latest of; only where the feed's policy asks."""
    holders: int = 0
    """Entries of outboxes that hold some of it."""
    since: float = math.inf
    """When the first outbox took it."""
    apart: dict[int, Batch] | None = None
    """Its frames as batches of their own, as far as they were asked for."""

    def hold(self, budget: Budget, now: float) -> None:
        """One entry more refers to it, which is charged to ``budget``, and the first one the bytes too."""
        budget.add(ENTRY_BYTES)
        if not self.holders:
            budget.add(self._footprint())
            self.since = min(self.since, now)
        self.holders += 1

    def release(self, budget: Budget) -> None:
        """One entry less; the last one gives the bytes back."""
        budget.remove(ENTRY_BYTES)
        self.holders -= 1
        if not self.holders:
            budget.remove(self._footprint())

    def give_up(self) -> None:
        """Count it as what could not be sent, because the connection is over."""
        self.feed.tally.unsent += len(self.ends)

    def _footprint(self) -> int:
        keys = 0 if self.keys is None else KEY_BYTES * len(self.keys)
        return len(self.data) + BATCH_BYTES + FRAME_BYTES * len(self.ends) + keys

    @property
    def key(self) -> Hashable | None:
        """What the one message of a `single` is the latest of."""
        return None if self.keys is None else self.keys[0]

    def size(self, first: int, last: int) -> int:
        """Bytes of the frames from ``first`` up to, without, ``last``."""
        start = self.ends[first - 1] if first else 0
        return self.ends[last - 1] - start if last > first else 0

    def cut(self, first: int, last: int) -> bytes:
        """Those frames."""
        if not first and last == len(self.ends):
            return self.data
        start = self.ends[first - 1] if first else 0
        return self.data[start : self.ends[last - 1]]

    def part(self, first: int, last: int) -> Batch:
        """Those frames as a batch of their own; this one, if they are all."""
        if not first and last == len(self.ends):
            return self
        start = self.ends[first - 1] if first else 0
        ends = tuple(end - start for end in self.ends[first:last])
        return Batch(self.feed, self.cut(first, last), ends, None if self.keys is None else self.keys[first:last])

    def alone(self, index: int) -> Batch:
        """One frame, in bytes of its own that all who ask share: holding it does not hold the others."""
        if len(self.ends) == 1:
            return self
        if self.apart is None:
            self.apart = {}
        if index not in self.apart:
            self.apart[index] = self.part(index, index + 1)
        return self.apart[index]


def single(feed: Feed, frame: bytes, keys: Sequence[Hashable | None] | None = None) -> Batch:
    """A batch of one frame."""
    return Batch(feed, frame, (len(frame),), keys)


def batch_of(feed: Feed, frames: Sequence[bytes], keys: Sequence[Hashable | None] | None = None) -> Batch:
    """A batch of ``frames``, at least one, joined."""
    if len(frames) == 1:
        return single(feed, frames[0], keys)
    return Batch(feed, b"".join(frames), tuple(accumulate(map(len, frames))), keys)
