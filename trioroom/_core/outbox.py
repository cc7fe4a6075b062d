"""A connection's frames that the kernel would not take, bounded in messages and bytes.

It exists only while it holds something: an idle connection has none. Each room that the connection is in
has a backlog in it with that room's bounds and policy, and so have the answers and pings that belong to no
room. The writer takes the oldest frames of all into its hand, a few kilobytes at a time; what is in its hand
is as good as sent: no policy drops it, and no bound counts it.
"""

from __future__ import annotations

import math

from trioroom._core.backlog import BACKLOG_BYTES, Backlog, Entry, Load, Verdict
from trioroom._core.batch import Batch, single
from trioroom._core.budget import Budget
from trioroom._core.overflow import CONTROL, Feed, Overflow, SlowConsumer
from trioroom._core.statistics import Lag

OUTBOX_BYTES = 5_000
"""What an outbox takes with the task that writes from it, charged to the budget; measured."""


class Outbox:
    """Owned by one connection, or by a member whose ``on_join`` is running; `discard` it at the end."""

    __slots__ = ("_backlogs", "_budget", "_hand", "_load", "_sent", "_written", "connection")

    def __init__(self, max_messages: int, max_bytes: int, budget: Budget, connection: str = "") -> None:
        self.connection = connection
        """The id of the one whose frames these are."""
        self._backlogs: dict[object, Backlog] = {}  # by their feeds, or sealed by nothing that anybody knows
        self._load = Load(max_messages, max_bytes, max_messages, max_bytes)
        self._budget = budget
        self._hand: list[Entry] = []
        self._sent = 0  # bytes of the first entry in the hand that are on the wire
        self._written = 0  # bytes that went out and nobody has asked for yet
        budget.add(OUTBOX_BYTES)

    def __bool__(self) -> bool:
        return bool(self._hand) or any(backlog.entries or backlog.lost for backlog in self._backlogs.values())

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait, shared ones included."""
        return self._load.queued_bytes

    def lag(self, now: float) -> Lag:
        """What waits; the writer's hand counts for the age alone."""
        oldest = min(entry.batch.since for entry in self._hand) if self._hand else now
        for backlog in self._backlogs.values():
            oldest = min(oldest, backlog.since)
        return Lag(self._load.messages, self._load.queued_bytes, max(0.0, now - oldest))

    # -- in ------------------------------------------------------------------------------------

    def begin(self, batch: Batch, sent: int, now: float) -> Verdict:
        """Take what the kernel refused of ``batch``, of which it took ``sent`` bytes: a torn frame is to be finished.

        This first batch comes in whole under `Overflow.DISCONNECT`, whatever its size: how much a kernel takes at
        once is chance, and a message may be larger than the outbox.
        """
        first, last = 0, len(batch.ends)
        while first < last and batch.ends[first] <= sent:
            first += 1
        torn = sent - (batch.ends[first - 1] if first else 0)
        backlog = self._backlog_of(batch.feed)
        if torn:
            backlog.append(batch, first, first + 1, now)
            self._hand.append(backlog.take(0))
            self._sent = torn
            first += 1
        if batch.feed.policy is not Overflow.DISCONNECT:
            return backlog.offer(batch, first, now)
        backlog.append(batch, first, last, now)
        return Verdict.QUEUED

    def offer(self, batch: Batch, now: float) -> Verdict:
        """Queue ``batch``, as far as its feed's policy says.

        What may be dropped makes room for what may not: a room that drops is often at the bound, and must not cost
        the connection when a ping is due, or a message of another room.
        """
        backlog = self._backlog_of(batch.feed)
        if batch.feed.policy is Overflow.DISCONNECT:
            while not backlog.fits(batch, 0, len(batch.ends)) and (other := self._oldest_droppable()) is not None:
                other.drop_first()
        return backlog.offer(batch, 0, now)

    def force(self, frame: bytes, now: float) -> None:
        """Queue a control frame past the bounds: the one close frame that ends a connection, or the latest pong."""
        self._backlog_of(CONTROL).append(single(CONTROL, frame), 0, 1, now)

    def seal(self, feed: Feed) -> None:
        """A membership is over: what waits of its room stays as it is, and its gaps where they are.

        Else a policy of the room would put messages of the next membership before the answer to the ``leave``.
        """
        backlog = self._backlogs.pop(feed, None)
        if backlog is not None:
            backlog.forget_keys()
            self._backlogs[object()] = backlog

    def _oldest_droppable(self) -> Backlog | None:
        waiting = (b for b in self._backlogs.values() if b.entries and b.feed.policy is not Overflow.DISCONNECT)
        return min(waiting, key=_place, default=None)

    def _backlog_of(self, feed: Feed) -> Backlog:
        backlog = self._backlogs.get(feed)
        if backlog is None:
            backlog = self._backlogs[feed] = Backlog(feed, self._load, self._budget)
        return backlog

    # -- out -----------------------------------------------------------------------------------

    def head(self, max_bytes: int) -> bytes:
        """What goes out next, about ``max_bytes``, now in the writer's hand until `advance`; empty at the end."""
        if not self._hand:
            self._fill_hand(max_bytes)
        parts = [entry.data for entry in self._hand]
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return data[self._sent :] if self._sent else data

    def advance(self, sent: int) -> None:
        """``sent`` bytes of the last `head` are on the wire."""
        self._sent += sent
        self._written += sent
        done = 0
        for entry in self._hand:
            if entry.size > self._sent:
                self._sent -= entry.pass_over(self._sent)
                break
            self._sent -= entry.size
            self._done(entry)
            done += 1
        del self._hand[:done]

    def take_written(self) -> int:
        """Bytes that went out since the last time."""
        written, self._written = self._written, 0
        return written

    def take_all(self) -> list[Batch]:
        """All that waits, oldest first and with the gaps in it, to be sent on; then the outbox is over."""
        self._fill_hand(math.inf)
        batches = [entry.batch.part(entry.first, entry.last) for entry in self._hand]
        for entry in self._hand:
            self._done(entry)
        self._hand.clear()
        self.discard()
        return batches

    def _fill_hand(self, max_bytes: float) -> None:
        while max_bytes > 0 and (backlog := self._oldest()) is not None:
            if lost := backlog.take_loss():
                max_bytes -= self._take_gap(backlog.feed, lost)
            else:
                self._hand.append(taken := backlog.take(max_bytes))
                max_bytes -= taken.size

    def _take_gap(self, feed: Feed, lost: int) -> int:
        if frame := feed.gap(lost):
            gap = single(CONTROL, frame)
            gap.hold(self._budget, math.inf)
            CONTROL.tally.queued += 1
            self._hand.append(Entry(gap, 0, 1, 0, 0))
        return len(frame)

    def _oldest(self) -> Backlog | None:
        oldest = min(self._backlogs.values(), key=_place, default=None)
        return None if oldest is None or oldest.place == math.inf else oldest

    # -- away ----------------------------------------------------------------------------------

    def count_slow_consumer(self) -> None:
        """Its connection is closed for not keeping up: that counts for each room that had something in here."""
        for feed in {backlog.feed for backlog in self._backlogs.values()}:
            feed.tally.slow_consumers += 1

    def clear(self, cause: SlowConsumer, *, keep_control: bool = False) -> None:
        """Drop all that waits: its connection is a slow consumer. What is in the writer's hand will still be sent."""
        for backlog in self._backlogs.values():
            if not (keep_control and backlog.feed is CONTROL):
                backlog.feed.tally.drop(backlog.empty(), cause)

    def discard(self) -> None:
        """Give up everything: the connection is over, or all has been sent."""
        for backlog in self._backlogs.values():
            backlog.feed.tally.unsent += backlog.empty()
        for entry in self._hand:
            entry.batch.feed.tally.unsent += entry.messages
            self._done(entry)
        self._hand.clear()
        self._budget.close(self)
        self._budget.remove(OUTBOX_BYTES + BACKLOG_BYTES * len(self._backlogs))

    def _done(self, entry: Entry) -> None:
        entry.batch.feed.tally.queued -= entry.messages
        entry.batch.release(self._budget)


def _place(backlog: Backlog) -> float:
    return backlog.place
