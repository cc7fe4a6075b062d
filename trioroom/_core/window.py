"""The latest publications of a room in a node's memory, up to the one that its fan-out has passed on last."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

import attrs
import msgspec

from trioroom._core.budget import Budget
from trioroom._core.history import History, Kept, Page, Position, same_place

ENTRY_BYTES = 170
"""What a publication takes beside its payload: the head of the bytes, the entry, its place in the queue."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A publication, and when it was published."""

    offset: int
    payload: bytes
    since: float


@attrs.define(eq=False)
class Window:
    """Without a hole: offsets go up by one. Owned by an active room.

    Charged to the server's budget, which may empty it; what it does not hold the backplane may.
    """

    history: History
    budget: Budget
    position: Position = attrs.field(factory=lambda: Position("", 0))
    """Behind the last publication that was passed on."""
    previous: Position | None = None
    """As in a `Page`."""
    complete: bool = False
    """Nothing older is held anywhere."""
    queued_bytes: int = 0
    """Of all entries, as the budget counts them."""
    _entries: deque[Entry] = attrs.field(factory=deque)

    @property
    def start(self) -> int:
        """The offset behind which it holds all."""
        return self.position.offset - len(self._entries)

    def go_on_from(self, position: Position, previous: Position | None) -> None:
        """What is appended next follows ``position``. If that is where we are, but for the epoch, nothing is lost."""
        if same_place(self.position, position, previous) != position:
            self.forget()
        self.position, self.previous = position, previous

    def append(self, publications: Iterable[Kept], now: float) -> None:
        """They follow `position`, and have been passed on."""
        for kept in publications:
            assert kept.offset == self.position.offset + 1, "the healing stage lets no hole through"
            self._entries.append(Entry(kept.offset, kept.payload, now - kept.age))
            self._count(len(kept.payload) + ENTRY_BYTES)
            self.position = Position(self.position.epoch, kept.offset)
        while len(self._entries) > self.history.size:
            self._drop_first()

    def extend_back(self, page: Page, now: float) -> bool:
        """What comes before; False when ``page`` does not reach up to here, since time has passed."""
        if same_place(self.position, page.position, page.previous) is None:
            return False
        if not page.kept:
            self.complete = self.complete or page.start >= self.start
            return self.complete
        if page.kept[-1].offset != self.start:
            return False
        for kept in reversed(page.kept):
            if len(self._entries) == self.history.size:
                break
            self._entries.appendleft(Entry(kept.offset, kept.payload, now - kept.age))
            self._count(len(kept.payload) + ENTRY_BYTES)
        self.complete = page.start >= self.start or len(self._entries) == self.history.size
        return True

    def expire(self, now: float) -> None:
        """Drop what is older than the history's ``ttl``."""
        oldest = now - self.history.ttl
        while self._entries and self._entries[0].since < oldest:
            self._drop_first()

    def after(self, offset: int) -> Iterator[Entry]:
        """Those behind ``offset``, which `start` has to reach; oldest first."""
        return islice(self._entries, max(0, offset - self.start), None)

    def forget(self) -> None:
        """Drop all: the place stays."""
        self._entries.clear()
        self._count(-self.queued_bytes)
        self.complete = False

    def _drop_first(self) -> None:
        entry = self._entries.popleft()
        self._count(-len(entry.payload) - ENTRY_BYTES)
        self.complete = True  # it is too old, or one too many, wherever else it was held

    def _count(self, size: int) -> None:
        self.queued_bytes += size
        self.budget.add(size)
