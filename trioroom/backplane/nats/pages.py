"""Reading a room's history page by page: which messages of its subject count, and where they are.

JetStream reads forwards only, from a sequence on, and says how many of the subject follow; where a page begins that
is asked for by its end has to be searched for. It drops the oldest of a room first: so what has been read is without
a hole as far as it comes after the first message that is still there afterwards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

import attrs
import trio

from trioroom._core.history import Kept, Page, Position
from trioroom.backplane.nats.epochs import Epoch
from trioroom.backplane.nats.history_stream import Batch, HistoryStream, Stored
from trioroom.errors import BackplaneUnavailable

PAGE_BYTES: Final = 1 << 20  # of payload, and of each reply
_ENOUGH: Final = PAGE_BYTES // 2  # replies count headers too, so that one may end a little before a page is full
_AT_LEAST: Final = 64  # of one reply, where much has to be passed over that does not count any more
_SLACK: Final = 16  # publications too many that a search may find: to read them is cheaper than another guess
_GUESSES: Final = 6  # which take it that the room publishes evenly; then halves
_STALE_INTERVAL: Final = 0.05  # seconds until a server that is behind is asked again


@attrs.frozen
class Extent:
    """What of a room's history counts now."""

    epoch: Epoch
    last: int
    """The latest sequence."""
    size: int
    now: float
    """By the server's clock."""
    ttl: float

    def holds(self, stored: Stored) -> bool:
        """Whether it is neither too old, nor one too many, nor of an epoch that nothing follows."""
        young = self.now - stored.since <= self.ttl
        return young and stored.later < self.size and stored.sequence > self.epoch.floor

    def start_at(self, first: Stored) -> int:
        """Where the room starts if that is its first message; as near as it tells."""
        return first.sequence - 1 if self.holds(first) and not first.mark else first.sequence


@attrs.define
class _Chain:
    """Publications that count, in turn, and what is before them."""

    extent: Extent
    max_publications: int
    max_bytes: float = float("inf")
    start: int = 0
    """The latest that does not count."""
    before: int | None = None
    """The one before the first."""
    payload_bytes: int = 0
    _messages: deque[Stored] = attrs.field(factory=deque)

    def add(self, stored: Stored) -> None:
        """The next one; the oldest make room for it."""
        if stored.mark or not self.extent.holds(stored):
            self.start = self.before = stored.sequence
            self._messages.clear()
            self.payload_bytes = 0
            return
        self._messages.append(stored)
        self.payload_bytes += len(stored.payload)
        while len(self._messages) > 1 and self._is_too_much:
            oldest = self._messages.popleft()
            self.payload_bytes -= len(oldest.payload)
            self.before = oldest.sequence

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def _is_too_much(self) -> bool:
        return len(self._messages) > self.max_publications or self.payload_bytes > self.max_bytes

    def after(self, start: int) -> Iterator[Kept]:
        """Those behind ``start``."""
        before, name, now = self.before, self.extent.epoch.name, self.extent.now
        for stored in self._messages:
            if stored.sequence > start:
                if before is not None and before < start:
                    before = start  # what was between the two may have been dropped before it could be read
                follows = None if before == stored.sequence - 1 else before
                yield Kept(name, stored.sequence, stored.payload, max(0.0, now - stored.since), follows)
            before = stored.sequence


class PageReader:
    """One read of a room's subject."""

    def __init__(self, stream: HistoryStream, subject: str, extent: Extent, timeout: float) -> None:
        self._stream = stream
        self._subject = subject
        self._extent = extent
        self._give_up = trio.current_time() + timeout

    async def after(self, offset: int | None, limit: int) -> Page:
        """See `trioroom.backplane.base.HistoryStore.read_after`."""
        # What does not count is never too much, and the room's whole history is read over if need be.
        chain = _Chain(self._extent, self._extent.size + 1)
        sequence, ends = self._extent.last + 1 if offset is None else offset + 1, limit <= 0
        while not ends and len(chain) < limit and chain.payload_bytes < _ENOUGH and sequence <= self._extent.last:
            batch = await self._read(sequence, max(limit - len(chain), _AT_LEAST if chain.start else 1))
            for stored in batch.messages:
                chain.add(stored)
                sequence = stored.sequence + 1
            ends = batch.ends
        return await self._make_page(chain, lambda kept: islice(_within_bytes(kept), limit))

    async def before(self, offset: int, limit: int) -> Page:
        """See `trioroom.backplane.base.HistoryStore.read_before`."""
        chain = _Chain(self._extent, limit, PAGE_BYTES)
        first = await self._read_first()
        if first is not None and first.sequence < offset and limit > 0:
            sequence, ends = await self._search(first, offset, limit), False
            while not ends:
                batch = await self._read(sequence, limit + _SLACK)
                for stored in batch.messages:
                    if stored.sequence < offset:
                        chain.add(stored)
                    sequence = stored.sequence + 1
                ends = batch.ends or sequence >= offset
        return await self._make_page(chain, iter)

    async def _search(self, first: Stored, offset: int, limit: int) -> int:
        """A place from which there are about ``limit`` that count up to ``offset``, and one more; or all there are."""
        extent = self._extent
        above = 0  # so many come from offset on
        if offset <= extent.last and (found := (await self._read(offset, 1)).messages):
            above = found[0].later + 1
        low, low_rank, high, high_rank = first.sequence, first.later + 1, offset, above
        guesses = 0
        while low_rank > (wanted := max(min(above + limit, extent.size), above) + 1) + _SLACK and high - low > 1:
            guesses += 1
            part = (wanted + _SLACK / 2 - high_rank) / (low_rank - high_rank) if guesses <= _GUESSES else 0.5
            guess = min(max(low + 1, high - round((high - low) * part)), high - 1)
            found = (await self._read(guess, 1)).messages
            rank = found[0].later + 1 if found else 0
            if found and found[0].sequence >= offset:
                above = rank  # more by now, if the room is busy: by the old count this one could pass for a start
            if rank < wanted or rank == above:
                high, high_rank = guess, rank
            else:
                low, low_rank = found[0].sequence, rank
        return low

    async def _make_page(self, chain: _Chain, choose: Callable[[Iterator[Kept]], Iterable[Kept]]) -> Page:
        extent = self._extent
        first = await self._read_first()
        start = extent.last if first is None else extent.start_at(first)
        if self._stream.replicated and (leaders := await self._stream.ask_first(self._subject)) is not None:
            start = max(start, leaders.sequence - 1)  # another server that we have read from may have dropped more
        start = max(start, chain.start, extent.epoch.floor)
        kept = tuple(choose(chain.after(start)))
        last = max(extent.last, start, kept[-1].offset if kept else 0)
        return Page(Position(extent.epoch.name, last), extent.epoch.origin, start, kept)

    async def _read_first(self) -> Stored | None:
        """The room's first message, which need not count."""
        messages = (await self._read(1, 1)).messages
        return messages[0] if messages else None

    async def _read(self, sequence: int, count: int) -> Batch:
        """As `HistoryStream.read`, from a server that has what the leader had when the read began.

        Raises:
            BackplaneUnavailable: there is none in time.
        """
        while True:
            batch = await self._stream.read(self._subject, sequence, count, PAGE_BYTES)
            last = batch.messages[-1].sequence if batch.messages else 0
            if not (self._stream.replicated and batch.ends and last < self._extent.last >= sequence):
                return batch
            if trio.current_time() >= self._give_up:
                raise BackplaneUnavailable("the broker's replicas are behind its leader; retry later")
            await trio.sleep(_STALE_INTERVAL)


def _within_bytes(publications: Iterable[Kept]) -> Iterator[Kept]:
    """As many as make a page, but one at least."""
    size = 0
    for kept in publications:
        if size and size + len(kept.payload) > PAGE_BYTES:
            return
        size += len(kept.payload)
        yield kept
