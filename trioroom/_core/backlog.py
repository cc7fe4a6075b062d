"""What waits of one feed in one outbox, and what its policy gives up when that is too much."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from enum import Enum, auto

import attrs
import msgspec

from trioroom._core.batch import Batch
from trioroom._core.budget import Budget
from trioroom._core.overflow import Feed, Overflow

BACKLOG_BYTES = 1_100
"""What a backlog takes, charged to the budget; measured, as the next is."""
INDEX_BYTES = 37
"""And what it takes to find an entry by its key."""


class Verdict(Enum):
    """What became of an offer."""

    QUEUED = auto()
    DROPPED = auto()  # some of it, or some that waited: the member will be told
    OVERFLOW = auto()  # nothing of it is kept, and the connection cannot go on


class Entry(msgspec.Struct, gc=False, eq=False):
    """A window on a batch: its frames from ``first`` up to, without, ``last``."""

    batch: Batch
    first: int
    last: int
    number: int
    """Its place among all that ever came into this outbox."""
    lost: int
    """Messages that are missing before it."""

    @property
    def messages(self) -> int:
        """How many frames."""
        return self.last - self.first

    @property
    def size(self) -> int:
        """Of how many bytes."""
        return self.batch.size(self.first, self.last)

    @property
    def data(self) -> bytes:
        """Those bytes."""
        return self.batch.cut(self.first, self.last)

    def pass_over(self, sent: int) -> int:
        """Leave out the frames that are in the first ``sent`` bytes, fewer than it has; how many bytes those are."""
        first, start = self.first, self.batch.size(0, self.first)
        while self.batch.ends[self.first] - start <= sent:
            self.first += 1
        self.batch.feed.tally.queued -= self.first - first
        return self.batch.size(first, self.first)


@attrs.define
class Load:
    """What waits in all backlogs of an outbox together, and may."""

    max_messages: int
    max_bytes: int
    default_messages: int
    """For a backlog whose feed names no bound of its own."""
    default_bytes: int
    messages: int = 0
    queued_bytes: int = 0
    entries: int = 0
    """How many ever came in, losses among them."""


class Backlog:
    """One feed's queue in an outbox."""

    __slots__ = (
        "_all", "_budget", "_latest", "_lost_at", "_max_bytes", "_max_messages", "entries", "feed", "lost", "messages",
        "queued_bytes",
    )  # fmt: skip

    def __init__(self, feed: Feed, all_waiting: Load, budget: Budget) -> None:
        self.feed = feed
        self.entries: deque[Entry] = deque()
        self.messages = 0
        self.queued_bytes = 0
        self.lost = 0
        """Messages that are missing behind the last entry."""
        self._lost_at = 0  # the place of the last of them
        self._latest: dict[Hashable, Entry] = {}  # what waits for each key, under Overflow.LATEST
        self._all = all_waiting
        self._budget = budget
        budget.add(BACKLOG_BYTES)
        # A room may allow more than the app does; then all rooms of the connection together may have that.
        self._max_messages = all_waiting.default_messages if feed.max_messages is None else feed.max_messages
        self._max_bytes = all_waiting.default_bytes if feed.max_bytes is None else feed.max_bytes
        all_waiting.max_messages = max(all_waiting.max_messages, self._max_messages)
        all_waiting.max_bytes = max(all_waiting.max_bytes, self._max_bytes)

    @property
    def place(self) -> float:
        """Where its first entry is among those of all backlogs, or the loss that is all it has; infinity without."""
        if self.entries:
            return self.entries[0].number
        return self._lost_at if self.lost else math.inf

    @property
    def since(self) -> float:
        """When the oldest message that waits began to; infinity when none does."""
        if self.feed.policy is Overflow.LATEST:  # the first may have taken the place of an older one just now
            return min((entry.batch.since for entry in self.entries), default=math.inf)
        return self.entries[0].batch.since if self.entries else math.inf

    # -- in ------------------------------------------------------------------------------------

    def offer(self, batch: Batch, first: int, now: float) -> Verdict:
        """Queue the frames of ``batch`` from ``first`` on, as far as the policy says."""
        match self.feed.policy:
            case Overflow.DISCONNECT:
                return self._all_or_nothing(batch, first, now)
            case Overflow.DROP_NEWEST:
                return self._drop_newest(batch, first, now)
            case Overflow.DROP_OLDEST:
                return self._drop_oldest(batch, first, now)
            case Overflow.LATEST:  # pragma: no branch  # there are no others
                return self._keep_latest(batch, first, now)

    def append(self, batch: Batch, first: int, last: int, now: float) -> None:
        """Queue the frames of ``batch`` from ``first`` up to, without, ``last``, past all bounds."""
        if first == last:
            return
        batch.hold(self._budget, now)
        self._all.entries += 1
        self.entries.append(Entry(batch, first, last, self._all.entries, self.lost))
        self.lost = 0
        self._count(last - first, batch.size(first, last))

    def fits(self, batch: Batch, first: int, last: int) -> bool:
        """Whether the frames of ``batch`` from ``first`` up to, without, ``last`` may be queued too."""
        messages, size, together = last - first, batch.size(first, last), self._all
        return (
            self.messages + messages <= self._max_messages
            and self.queued_bytes + size <= self._max_bytes
            and together.messages + messages <= together.max_messages
            and together.queued_bytes + size <= together.max_bytes
        )

    def drop_first(self) -> None:
        """Give up the oldest message."""
        entry = self.entries[0]
        self._count(-1, -entry.batch.size(entry.first, entry.first + 1))
        self.feed.tally.dropped += 1
        entry.lost += 1
        entry.first += 1
        if entry.first == entry.last:
            self._leave(entry)
            entry.batch.release(self._budget)
            if self.entries:
                self.entries[0].lost += entry.lost
            else:
                self.lost += entry.lost
                self._lost_at = max(self._lost_at, entry.number)

    def _all_or_nothing(self, batch: Batch, first: int, now: float) -> Verdict:
        last = len(batch.ends)
        if not self.fits(batch, first, last):
            self.feed.tally.dropped += last - first
            return Verdict.OVERFLOW
        self.append(batch, first, last, now)
        return Verdict.QUEUED

    def _drop_newest(self, batch: Batch, first: int, now: float) -> Verdict:
        last = len(batch.ends)
        while last > first and not self.fits(batch, first, last):
            last -= 1
        self.append(batch, first, last, now)
        if dropped := len(batch.ends) - last:
            self._lose(dropped)
        return Verdict.DROPPED if dropped else Verdict.QUEUED

    def _drop_oldest(self, batch: Batch, first: int, now: float) -> Verdict:
        last, verdict = len(batch.ends), Verdict.QUEUED
        while first < last and not self.fits(batch, first, last):
            verdict = Verdict.DROPPED
            if self.entries:
                self.drop_first()
            else:
                first += 1
                self._lose(1)
        self.append(batch, first, last, now)
        return verdict

    def _lose(self, messages: int) -> None:
        """They come now, and have no place."""
        self._all.entries += 1
        self._lost_at = self._all.entries
        self.lost += messages
        self.feed.tally.dropped += messages

    def _keep_latest(self, batch: Batch, first: int, now: float) -> Verdict:
        verdicts = {self._keep_one(batch.alone(index), now) for index in range(first, len(batch.ends))}
        return Verdict.DROPPED if Verdict.DROPPED in verdicts else Verdict.QUEUED

    def _keep_one(self, batch: Batch, now: float) -> Verdict:
        key = batch.key
        if key is not None and (entry := self._latest.get(key)) is not None:
            self._replace(entry, batch, now)
            return Verdict.DROPPED
        verdict = self._drop_oldest(batch, 0, now)
        if key is not None and self.entries and self.entries[-1].batch is batch:
            self._latest[key] = self.entries[-1]
            self._budget.add(INDEX_BYTES)
        return verdict

    def _replace(self, entry: Entry, newer: Batch, now: float) -> None:
        # In the place of the old one: at the end of the queue a key that changes often would never have its turn.
        newer.hold(self._budget, now)
        self._count(0, newer.size(0, 1) - entry.size)
        entry.batch.release(self._budget)
        entry.batch = newer
        self.feed.tally.dropped += 1
        self.entries[0].lost += 1  # told once for all that were replaced, before what they were among
        while self.entries and not self.fits(newer, 0, 0):  # it may be larger
            self.drop_first()

    # -- out -----------------------------------------------------------------------------------

    def take(self, max_bytes: float) -> Entry:
        """The oldest frames, one at least and more up to ``max_bytes``. The tally still has them as queued."""
        entry = self.entries[0]
        last = entry.first + 1
        while last < entry.last and entry.batch.size(entry.first, last + 1) <= max_bytes:
            last += 1
        taken = Entry(entry.batch, entry.first, last, entry.number, 0)
        self._count(-taken.messages, -taken.size)
        self.feed.tally.queued += taken.messages  # until they are sent or given up, which the outbox says
        if last == entry.last:
            self._leave(entry)
        else:
            entry.first = last
            entry.batch.hold(self._budget, entry.batch.since)
        return taken

    def take_loss(self) -> int:
        """How many messages are missing at this place; from now on that is told."""
        if self.entries:
            lost, self.entries[0].lost = self.entries[0].lost, 0
        else:
            lost, self.lost = self.lost, 0
        return lost

    def empty(self) -> int:
        """Give up all that waits, and say how many messages that was."""
        for entry in self.entries:
            entry.batch.release(self._budget)
        messages = self.messages
        self._count(-messages, -self.queued_bytes)
        self.entries.clear()
        self.forget_keys()
        self.lost = 0
        return messages

    def forget_keys(self) -> None:
        """Nothing that waits is replaced any more."""
        self._budget.remove(INDEX_BYTES * len(self._latest))
        self._latest.clear()

    def _leave(self, entry: Entry) -> None:
        self.entries.popleft()
        if self._latest and self._latest.pop(entry.batch.key, None) is not None:
            self._budget.remove(INDEX_BYTES)

    def _count(self, messages: int, size: int) -> None:
        self.messages += messages
        self.queued_bytes += size
        self._all.messages += messages
        self._all.queued_bytes += size
        self.feed.tally.queued += messages
