"""What rooms have published and an embedded backplane keeps of it: one history for each, one bound in bytes for all."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from trioroom._core.entries import Entries, Entry
from trioroom._core.history import History, Kept, Page, Position

PAGE_BYTES = 1 << 20  # of payload in one page, which its first publication may exceed
ENTRY_BYTES = 200  # beside a payload: its head 33, the record 40, its time 24, its offset 32, its place in the queue
ROOM_BYTES = 1_000  # of a history that keeps nothing: the record, its queue and epoch, and a name of usual length


class RoomArchive:
    """The publications of one room, as far as its `History` keeps them.

    Who calls it knows the time, which only grows.
    """

    __slots__ = ("_entries", "epoch", "history", "kept_bytes", "offset", "start")

    def __init__(self, begin: Position, history: History) -> None:
        self.epoch = begin.epoch
        self.history = history
        """As the last publisher or reader said."""
        self.offset = begin.offset
        """Of the latest publication."""
        self.start = begin.offset
        """Of the latest publication that is gone."""
        self.kept_bytes = ROOM_BYTES
        """Including what the records take."""
        self._entries = Entries()

    def append(self, payload: bytes, now: float, offset: int | None = None) -> Kept:
        """The next publication; None is the next offset."""
        follows = None if offset is None else self.offset
        self.offset = self.offset + 1 if offset is None else offset
        self._entries.append(Entry(self.offset, payload, now))
        self.kept_bytes += len(payload) + ENTRY_BYTES
        self.trim(now)
        return Kept(self.epoch, self.offset, payload, 0.0, follows)

    def trim(self, now: float) -> None:
        """Drop what is too old, or too much."""
        entries, history = self._entries, self.history
        while entries and (len(entries) > history.size or now - entries[0].since > history.ttl):
            self.drop_oldest()

    def drop_oldest(self) -> bool:
        """False if there is none."""
        if not self._entries:
            return False
        entry = self._entries.popleft()
        self.start = entry.offset
        self.kept_bytes -= len(entry.payload) + ENTRY_BYTES
        return True

    def read_after(self, offset: int | None, limit: int, now: float) -> Page:
        """The first ``limit`` of those after ``offset``; for None nothing. Fewer if they are large."""
        if offset is None:
            return self._page([])
        place = max(offset, self.start)
        return self._page(_within_bytes(self._kept(place, islice(self._entries.after(place), limit), now)))

    def read_before(self, offset: int, limit: int, now: float) -> Page:
        """The last ``limit`` of those below ``offset``. Fewer if they are large."""
        entries = self._entries.before(offset, limit + 1)
        place = entries.pop(0).offset if len(entries) > limit else self.start
        latest_first = reversed(list(self._kept(place, entries, now)))
        return self._page(_within_bytes(latest_first)[::-1])

    def _kept(self, place: int, entries: Iterable[Entry], now: float) -> Iterator[Kept]:
        """As pages have them that which follow ``place``."""
        for entry in entries:
            follows = None if place == entry.offset - 1 else place
            yield Kept(self.epoch, entry.offset, entry.payload, now - entry.since, follows)
            place = entry.offset

    def _page(self, kept: list[Kept]) -> Page:
        return Page(Position(self.epoch, self.offset), None, self.start, tuple(kept))


def _within_bytes(publications: Iterable[Kept]) -> list[Kept]:
    taken: list[Kept] = []
    taken_bytes = 0
    for kept in publications:
        taken_bytes += len(kept.payload)
        if taken and taken_bytes > PAGE_BYTES:
            break
        taken.append(kept)
    return taken


class Archive:
    """The archives of all rooms. When they pass ``max_bytes``, rooms that have been quiet longest lose their own.

    Where a single room passes the bound it loses its oldest publications, be it all of them.

    Args:
        begin: where a room begins that is not known, or not any more.
        on_forget: told of a room that has lost its archive, and where that ended.
    """

    def __init__(
        self,
        max_bytes: float,
        begin: Callable[[str], Position],
        on_forget: Callable[[str, Position], None] = lambda room, end: None,
    ) -> None:
        self.max_bytes = max_bytes
        """Payloads, and what the records around them take; ``math.inf`` is no bound."""
        self.kept_bytes = 0
        """How many are kept."""
        self._begin = begin
        self._on_forget = on_forget
        self._rooms: OrderedDict[str, RoomArchive] = OrderedDict()  # that which has been quiet longest comes first

    def append(
        self, room: str, payload: bytes, history: History | None, now: float, offset: int | None = None
    ) -> Kept | None:
        """The room's next publication; None if ``history`` is and nobody has said before how much the room keeps.

        Args:
            offset: above all the room has; None is the next one.
        """
        if history is None:
            if room not in self._rooms:
                return None
            history = self._rooms[room].history
        archive = self.open(room, history, now)
        self._rooms.move_to_end(room)
        before = archive.kept_bytes
        kept = archive.append(payload, now, offset)
        self.kept_bytes += archive.kept_bytes - before
        self._relieve(archive)
        return kept

    def read_after(
        self, room: str, history: History, offset: int | None, limit: int, now: float, seen: Position | None = None
    ) -> Page:
        """As the contract in `trioroom.backplane.base` has it."""
        archive = self._rooms.get(room)
        if archive is not None and seen is not None and archive.epoch == seen.epoch and archive.offset < seen.offset:
            self._forget(room)
        return self.open(room, history, now).read_after(offset, limit, now)

    def read_before(self, room: str, history: History, offset: int, limit: int, now: float) -> Page:
        """As the contract in `trioroom.backplane.base` has it."""
        return self.open(room, history, now).read_before(offset, limit, now)

    def history_of(self, room: str) -> History | None:
        """What was said last; None if nothing was."""
        archive = self._rooms.get(room)
        return None if archive is None else archive.history

    def open(self, room: str, history: History, now: float) -> RoomArchive:
        """The room's archive as it is ``now``, be it a new one; ``history`` is what is said of it."""
        archive = self._rooms.get(room)
        if archive is None:
            archive = self._rooms[room] = RoomArchive(self._begin(room), history)
            self.kept_bytes += archive.kept_bytes
            self._relieve(archive)
            return archive
        archive.history = history
        before = archive.kept_bytes
        archive.trim(now)
        self.kept_bytes += archive.kept_bytes - before
        return archive

    def _relieve(self, in_use: RoomArchive) -> None:
        """Come back under the bound, if need be at the cost of what is in use, which is the last one."""
        while self.kept_bytes > self.max_bytes and len(self._rooms) > 1:
            self._forget(next(iter(self._rooms)))
        before = in_use.kept_bytes
        while self.kept_bytes + in_use.kept_bytes - before > self.max_bytes and in_use.drop_oldest():
            pass
        self.kept_bytes += in_use.kept_bytes - before

    def forget_all(self, which: Callable[[str], bool]) -> None:
        """Drop what is kept of these rooms, and that they are known."""
        for room in [room for room in self._rooms if which(room)]:
            self._forget(room)

    def _forget(self, room: str) -> None:
        archive = self._rooms.pop(room)
        self.kept_bytes -= archive.kept_bytes
        self._on_forget(room, Position(archive.epoch, archive.offset))
