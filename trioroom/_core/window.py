"""The latest publications of a room in a node's memory, up to the one that its fan-out has passed on last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from trioroom._core.budget import Budget
from trioroom._core.entries import Entries, Entry
from trioroom._core.history import History, Kept, Page, Position, same_place

ENTRY_BYTES = 170
"""What a publication takes beside its payload: the head of the bytes, the entry, its place in the queue."""


@attrs.define(eq=False)
class Window:
    """None of the room's is missing between its first and its last. Owned by an active room.

    Charged to the server's budget, which may empty it; what it does not hold the backplane may.
    """

    history: History
    budget: Budget
    position: Position = attrs.field(factory=lambda: Position("", 0))
    """Behind the last publication that was passed on."""
    start: int = 0
    """The offset behind which it holds all."""
    previous: Position | None = None
    """As in a `Page`."""
    complete: bool = False
    """Nothing older is held anywhere."""
    queued_bytes: int = 0
    """Of all entries, as the budget counts them."""
    _entries: Entries = attrs.field(factory=Entries)

    def go_on_from(self, position: Position, previous: Position | None) -> None:
        """What is appended next follows ``position``. If that is where we are, but for the epoch, nothing is lost."""
        here = same_place(self.position, position, previous)
        self.position, self.previous = position, previous
        if here != position:
            self.forget()

    def append(self, publications: Iterable[Kept], now: float) -> None:
        """They follow `position`, and have been passed on."""
        offset, size = self.position.offset, 0
        for kept in publications:
            assert kept.offset > offset, "the healing stage lets nothing through twice"
            offset = kept.offset
            self._entries.append(Entry(offset, kept.payload, now - kept.age))
            size += len(kept.payload) + ENTRY_BYTES
        self.position = Position(self.position.epoch, offset)
        self._count(size)
        while len(self._entries) > self.history.size:
            self._drop_first()

    def extend_back(self, page: Page, before: int, now: float) -> bool:
        """Take in those up to the place ``before``; False if that is not `start` any more, or ``page`` is too old."""
        if before != self.start or same_place(self.position, page.position, page.previous) is None:
            return False
        if not page.kept:  # nothing is held between the two
            self.start = min(self.start, page.start)
        for kept in reversed(page.kept):
            if len(self._entries) == self.history.size:
                break
            self._entries.appendleft(Entry(kept.offset, kept.payload, now - kept.age))
            self._count(len(kept.payload) + ENTRY_BYTES)
            self.start = kept.place_before
        self.complete = page.start >= self.start or len(self._entries) == self.history.size
        return True

    def expire(self, now: float) -> None:
        """Drop what is older than the history's ``ttl``."""
        oldest = now - self.history.ttl
        while self._entries and self._entries[0].since < oldest:
            self._drop_first()

    def after(self, offset: int) -> Iterator[Entry]:
        """Those behind ``offset``, which `start` has to reach; oldest first."""
        return self._entries.after(offset)

    def before(self, offset: int, limit: int) -> list[Entry]:
        """The last ``limit`` of those below ``offset`` that it holds."""
        return self._entries.before(offset, limit)

    def forget(self) -> None:
        """Drop all: the place stays."""
        self._entries.clear()
        self.start = self.position.offset
        self._count(-self.queued_bytes)
        self.complete = False

    def _drop_first(self) -> None:
        entry = self._entries.popleft()
        self.start = entry.offset
        self._count(-len(entry.payload) - ENTRY_BYTES)
        self.complete = True  # it is too old, or one too many, wherever else it was held

    def _count(self, size: int) -> None:
        self.queued_bytes += size
        self.budget.add(size)
