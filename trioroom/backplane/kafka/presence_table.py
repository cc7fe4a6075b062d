"""Who is present, as the log has it so far: what all nodes that have read as far agree on.

Nothing here looks at a clock or writes: whoever reads the log gives its statements, and is told what changes by them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, TypeAlias

import attrs

from trioroom.backplane.kafka.presence_records import Beat, Dead, Gone, Row, SeatId, Statement

ROW_BYTES: Final = 150
"""Of memory that a row takes beside its user and its info; measured, rounded up."""
SEAT_BYTES: Final = 700
"""Likewise a seat that has rows, beside those."""

Rows: TypeAlias = dict[str, bytes]


@attrs.define(eq=False)
class _Seat:
    id: SeatId
    rows: Rows = attrs.field(factory=dict)
    closed: bool = False


@attrs.define(eq=False)
class Node:
    """One that has written something, and has not been cleaned up after."""

    heard: float
    """When we read its last beat, by our clock."""
    stamp: float = -1
    """When it wrote that, by the clock of the log; below zero where the log does not say."""
    dead_since: float | None = None
    """When we read that it is."""
    hidden: bool = False
    """Not shown, as it may be dead since before we came; until it is heard."""
    seats: dict[int, _Seat] = attrs.field(factory=dict)

    @property
    def counts(self) -> bool:
        """Whether its rows are shown."""
        return self.dead_since is None and not self.hidden


@attrs.define
class Changes:
    """Of one seat's rows."""

    seat: SeatId
    put: Rows = attrs.field(factory=dict)
    removed: dict[str, None] = attrs.field(factory=dict)


@attrs.frozen
class SeatGone:
    """All its rows are."""

    seat: SeatId


class News:
    """What has changed, in an order that is right for each seat."""

    def __init__(self) -> None:
        self.events: list[Changes | SeatGone] = []
        self.dead: set[str] = set()
        """Nodes that are."""
        self._open: dict[SeatId, Changes] = {}

    def change(self, seat: SeatId, user: str, info: bytes | None) -> None:
        """Joined with what was said of the seat before."""
        changes = self._open.get(seat)
        if changes is None:
            changes = self._open[seat] = Changes(seat)
            self.events.append(changes)
        if info is None:
            changes.put.pop(user, None)
            changes.removed[user] = None
        else:
            changes.removed.pop(user, None)
            changes.put[user] = info

    def end(self, seat: SeatId) -> None:
        """The seat is gone."""
        self._open.pop(seat, None)
        self.events.append(SeatGone(seat))


class Table:
    """Owned by `KafkaPresence`."""

    def __init__(self, max_bytes: int) -> None:
        self.nodes: dict[str, Node] = {}
        self.bytes = 0
        """Of memory, about."""
        self.dropped = 0
        """Rows that were too many."""
        self._max_bytes = max_bytes
        self._rooms: dict[str, dict[SeatId, _Seat]] = {}  # seats of living nodes that have rows

    def rows(self, room: str) -> dict[SeatId, Rows]:
        """Those that are shown; not to be changed."""
        seats = self._rooms.get(room, {})
        return {seat: of.rows for seat, of in seats.items() if self.nodes[seat.node].counts}

    def take(self, statement: Statement, now: float, stamp: float, news: News) -> None:
        """The next one of the log."""
        match statement:
            case Row():
                self._take_row(statement, now, news)
            case Beat(node, lives=True):
                self._take_beat(self._node(node, now), now, stamp, news)
            case Beat(node):
                self._take_farewell(node, now, news)
            case Dead(node, is_dead=True):
                self._bury(node, now, news)
            case Dead(node):
                self._forget(node, now, news)
            case Gone(seat, is_gone):
                self._take_gone(seat, is_gone, now, news)

    # -- rows ------------------------------------------------------------------------------------

    def _take_row(self, statement: Row, now: float, news: News) -> None:
        seat = self._seat(statement.seat, now, make=statement.info is not None)
        if seat is None:
            return
        node = self.nodes[seat.id.node]
        changed = self._set_row(seat, statement.user, statement.info)
        self._file(node, seat)
        if changed and node.counts and not seat.closed:
            news.change(seat.id, statement.user, seat.rows.get(statement.user))

    def _seat(self, seat_id: SeatId, now: float, *, make: bool) -> _Seat | None:
        if not make and (seat_id.node not in self.nodes or seat_id.number not in self.nodes[seat_id.node].seats):
            return None  # a tombstone that has outlasted what it is about
        seats = self._node(seat_id.node, now).seats
        seat = seats.setdefault(seat_id.number, _Seat(seat_id))
        return seat if seat.id == seat_id else None  # else it has another room: that is not of our making

    def _set_row(self, seat: _Seat, user: str, info: bytes | None) -> bool:
        """Whether that is another than it was."""
        before = seat.rows.get(user)
        if before == info:
            return False
        size = 0 if before is None else -_size(user, before)
        if info is not None:
            size += _size(user, info) + (0 if seat.rows else SEAT_BYTES)
            if self.bytes + size > self._max_bytes:
                self.dropped += 1
                if before is None:
                    return False
                info, size = None, -_size(user, before)  # rather none than a wrong one
        self.bytes += size
        if info is None:
            del seat.rows[user]
            self.bytes -= 0 if seat.rows else SEAT_BYTES
        else:
            seat.rows[user] = info
        return True

    def _file(self, node: Node, seat: _Seat) -> None:
        """In its room, or out of it, by whether it has rows."""
        if not seat.rows and not seat.closed:
            node.seats.pop(seat.id.number, None)
        if seat.rows and node.dead_since is None and not seat.closed:
            self._rooms.setdefault(seat.id.room, {})[seat.id] = seat
        elif (seats := self._rooms.get(seat.id.room)) is not None and seat.id in seats:
            del seats[seat.id]
            if not seats:
                del self._rooms[seat.id.room]

    # -- seats and nodes that go -----------------------------------------------------------------

    def _take_gone(self, seat_id: SeatId, is_gone: bool, now: float, news: News) -> None:
        seat = self._seat(seat_id, now, make=is_gone)
        if seat is None:
            return
        node = self.nodes[seat_id.node]
        if is_gone:
            self._end(node, seat, news)
        elif seat.closed and node.counts:  # with rows only where somebody else takes back what he has no right to
            for user, info in seat.rows.items():
                news.change(seat.id, user, info)
        seat.closed = is_gone
        self._file(node, seat)

    def _end(self, node: Node, seat: _Seat, news: News) -> None:
        if node.counts and seat.rows and not seat.closed:
            news.end(seat.id)

    def _bury(self, name: str, now: float, news: News) -> None:
        node = self._node(name, now)
        if node.dead_since is None:
            for seat in node.seats.values():
                self._end(node, seat, news)
            node.dead_since = now
            news.dead.add(name)
            for seat in list(node.seats.values()):
                self._file(node, seat)

    def _take_farewell(self, name: str, now: float, news: News) -> None:
        if (node := self.nodes.get(name)) is None or node.dead_since is not None:
            return
        if node.seats:
            self._bury(name, now, news)  # it has not taken back all, and will not
        else:
            del self.nodes[name]

    def _forget(self, name: str, now: float, news: News) -> None:
        if name in self.nodes:
            # Compaction may have removed that it was dead, and not what it wrote before it had read that.
            self._bury(name, now, news)
            node = self.nodes.pop(name)
            for seat in node.seats.values():
                self.bytes -= sum(_size(user, info) for user, info in seat.rows.items())
                self.bytes -= SEAT_BYTES if seat.rows else 0

    # -- nodes that live -------------------------------------------------------------------------

    def _node(self, name: str, now: float) -> Node:
        node = self.nodes.get(name)
        if node is None:
            node = self.nodes[name] = Node(now)
        return node

    def _take_beat(self, node: Node, now: float, stamp: float, news: News) -> None:
        node.heard, node.stamp = now, stamp
        if node.hidden:
            node.hidden = False
            for seat in node.seats.values():
                if node.counts and not seat.closed:
                    for user, info in seat.rows.items():
                        news.change(seat.id, user, info)

    def hide_silent(self, since: float, known: Collection[str]) -> None:
        """Nodes whose last beat was written before ``since``, by the clock of the log, or which have none; not of those
        ``known``. Where the log has no clock ``since`` is less than any stamp."""
        for name, node in self.nodes.items():
            node.hidden = node.stamp < since and name not in known

    def left_behind(self, died_before: float) -> Iterator[Statement]:
        """What takes back all that is left of nodes that were dead by then, in the order in which it has to be said."""
        for name, node in self.nodes.items():
            if node.dead_since is not None and node.dead_since < died_before:
                for seat in node.seats.values():
                    yield from (Row(seat.id, user, None) for user in seat.rows)
                    if seat.closed:
                        yield Gone(seat.id, is_gone=False)
                yield Beat(name, lives=False)
                yield Dead(name, is_dead=False)


def _size(user: str, info: bytes) -> int:
    return len(user) + len(info) + ROW_BYTES
