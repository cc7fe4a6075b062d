"""A store of histories that keeps the contract, and can lose what it has: what a broker does in bad times."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import trio

from trioroom._core.history import History, Kept, Page, Position
from trioroom.backplane.base import Lost
from trioroom.backplane.memory import MemoryBackplane
from trioroom.backplane.room_channel import RoomChannel
from trioroom.errors import BackplaneUnavailable

SIZE = 8


class Store:
    """A history of one room, of `SIZE` publications.

    Args:
        holes: how many offsets other rooms take after each publication; None gives each room its own.
    """

    def __init__(self, holes: Iterable[int] | None = None) -> None:
        self.dense_offsets = holes is None
        self.channels: list[RoomChannel] = []
        self.deliveries = 1
        """How often the next publication is delivered."""
        self.is_up = True
        self.lost = False
        """Something that was confirmed is not there any more."""
        self.before_read: Callable[[], Awaitable[None]] | None = None
        """Runs once, when a read has been sent and has not yet reached the store."""
        self._epochs = map(str, itertools.count())
        self._epoch = next(self._epochs)
        self._previous: Position | None = None
        self._entries: list[tuple[int, bytes]] = []
        self._holes = itertools.repeat(0) if holes is None else itertools.cycle(holes)
        self._start = 0
        self._end = 0  # the latest offset of all rooms

    @property
    def _offset(self) -> int:
        return self._entries[-1][0] if self._entries else self._start

    async def publish(
        self, room: str, payload: bytes, history: History | None, publication_id: str | None = None
    ) -> Position:
        await trio.lowlevel.checkpoint()
        self._check()
        follows, offset = self._offset, self._end + 1
        self._entries.append((offset, payload))
        self._end = offset + next(self._holes)
        self.forget(len(self._entries) - SIZE)
        for _ in range(self.deliveries):
            for channel in self.channels:
                channel.offer(Kept(self._epoch, offset, payload, 0.0, None if self.dense_offsets else follows))
        self.deliveries = 1
        return Position(self._epoch, offset)

    @asynccontextmanager
    async def subscribe(self, room: str, channel: RoomChannel) -> AsyncIterator[None]:
        self.channels.append(channel)
        try:
            yield
        finally:
            self.channels.remove(channel)

    async def read_after(
        self, room: str, history: History, offset: int | None, limit: int, *, seen: Position | None = None
    ) -> Page:
        await trio.lowlevel.checkpoint()
        await self._run_before_read()
        self._check()
        previous = self._previous
        if seen is not None and (
            (seen.epoch == self._epoch and seen.offset > self._end)
            or (previous is not None and seen.epoch == previous.epoch and seen.offset > previous.offset)
        ):
            self._start, self._entries = self._offset, []
            self._epoch, self._previous = next(self._epochs), None
        after = [] if offset is None else [entry for entry in self._entries if entry[0] > offset]
        return self._page(after[:limit])

    async def read_before(self, room: str, history: History, offset: int, limit: int) -> Page:
        await trio.lowlevel.checkpoint()
        await self._run_before_read()
        self._check()
        return self._page([entry for entry in self._entries if entry[0] < offset][-limit:])

    def _page(self, entries: list[tuple[int, bytes]]) -> Page:
        kept = [Kept(self._epoch, offset, payload) for offset, payload in entries]
        return Page(Position(self._epoch, self._end), self._previous, self._start, tuple(kept))

    async def _run_before_read(self) -> None:
        if self.before_read is not None:
            happens, self.before_read = self.before_read, None
            await happens()

    def _check(self) -> None:
        if not self.is_up:
            raise BackplaneUnavailable("it is down")

    # -- what happens to it --------------------------------------------------------------------

    def forget(self, count: int) -> None:
        """The oldest are trimmed, or have expired."""
        if (gone := min(len(self._entries), max(0, count))) > 0:
            self._start = self._entries[gone - 1][0]
            del self._entries[:gone]

    def restart(self, lost: int) -> None:
        """Another incarnation, without the last ones; listeners were cut off meanwhile."""
        self.lost |= lost > 0 and bool(self._entries)
        if lost > 0:
            del self._entries[len(self._entries) - min(lost, len(self._entries)) :]
            self._end = self._offset
        self._previous = Position(self._epoch, self._end)
        self._epoch = next(self._epochs)
        self.interrupt("backplane")

    def flush(self) -> None:
        """All data is gone, and nobody says so."""
        self.lost = True
        self._start, self._end, self._entries, self._previous = 0, 0, [], None
        self._epoch = next(self._epochs)

    def interrupt(self, reason: str) -> None:
        for channel in self.channels:
            channel.offer(Lost(reason))


class LosingBackplane(MemoryBackplane):
    """Rooms with a history are all the one of ``store``."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store

    @property
    def history(self) -> Store:
        return self.store
