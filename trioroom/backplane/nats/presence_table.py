"""What the table of a room in the bucket says, and what is told of it: bytes that anybody at the broker can have put.

A row has a key of its own, ``room.ROOM.NODE.NUMBER.USER``, and so have the marks of a seat, ``room.ROOM.NODE.NUMBER``.
A seat numbers its writes, and each message of one says how many there are: who follows a room notices what is missing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable
from typing import Final, TypeAlias

import attrs
import msgspec

from trioroom.backplane.nats.bucket import Entry, Put
from trioroom.backplane.nats.subjects import token_of

log = logging.getLogger("trioroom.backplane")
MAX_EARLY_BYTES: Final = 1 << 21
"""Of changes that wait while the table is read; beyond them it is read again. Of each room that is read, and after an
outage those are all that a node has."""
_EARLY_BYTES = 250  # of one of them, beside its payload
_MAX_TOKEN = 64  # characters of a user in a key; a subject may have some 4,000, of which a room may take 3,000
_OPEN, _GONE = b"open", b"gone"


class _Row(msgspec.Struct, array_like=True, frozen=True):
    """The payload of one; no info: it is removed."""

    write: int
    of: int
    user: str
    info: bytes | None


_rows = msgspec.msgpack.Decoder(_Row)


@attrs.frozen
class RowChange:
    """A row was put or, without ``info``, removed."""

    seat: str
    user: str
    info: bytes | None
    sequence: int
    write: int
    """Which write of the seat it belongs to; they are numbered."""
    of: int
    """Changes of that write."""


@attrs.frozen
class Opened:
    """A seat is about to read the table."""

    seat: str
    sequence: int


@attrs.frozen
class Gone:
    """A seat has no rows any more, and will have none again."""

    seat: str


Change: TypeAlias = RowChange | Opened | Gone


def put_of_row(room: str, seat: str, user: str, info: bytes | None, write: int, of: int) -> Put:
    """Of a row, or of its removal. ``room`` is a token."""
    token = token_of(user)
    if len(token) > _MAX_TOKEN:
        token = "=" + hashlib.sha256(user.encode()).hexdigest()  # longer than what is no digest
    payload = msgspec.msgpack.encode(_Row(write, of, user, info))
    return Put(f"room.{room}.{seat}.{token}", payload, fades=info is None)


def put_of_mark(room: str, seat: str, *, gone: bool) -> Put:
    """That a seat reads the table, or is gone."""
    return Put(f"room.{room}.{seat}", _GONE if gone else _OPEN, fades=True)


def keys_of_room(room: str) -> str:
    """All of the table's."""
    return f"room.{room}.>"


def keys_of_rows(room: str, seat: str) -> str:
    """Of all rows of a seat."""
    return f"room.{room}.{seat}.*"


def keys_of_node(node: str) -> str:
    """Of all rows of a node, in all rooms."""
    return f"room.*.{node}.>"


def node_of(seat: str) -> str:
    """Whose lease it hangs on."""
    return seat.partition(".")[0]


def parse_change(entry: Entry) -> Change | None:
    """What it is; None if it is somebody else's."""
    where = entry.key.split(".")[2:]
    seat = ".".join(where[:2])
    if len(where) == 2 and entry.payload in (_OPEN, _GONE):
        return Gone(seat) if entry.payload == _GONE else Opened(seat, entry.sequence)
    if len(where) == 3:
        try:
            row = _rows.decode(entry.payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return RowChange(seat, row.user, row.info, entry.sequence, row.write, row.of)
    return None


Rows = dict[str, dict[str, bytes]]
"""Seat -> user -> what it shows of itself."""


class Table:
    """The rows of a room, as they are read and as they change meanwhile."""

    def __init__(self, changes: Iterable[Change]) -> None:
        self._rows: dict[tuple[str, str], tuple[int, bytes | None]] = {}  # a removed one for what may come late
        self._gone: set[str] = set()
        self.opened: dict[str, int] = {}
        """By which number each seat that reads the table is there."""
        for change in changes:
            self.apply(change)

    def apply(self, change: Change) -> None:
        """In any order: the number of each counts."""
        match change:
            case RowChange():
                row = (change.seat, change.user)
                if change.sequence > self._rows.get(row, (0, None))[0]:
                    self._rows[row] = change.sequence, change.info
            case Opened():
                self.opened[change.seat] = change.sequence
            case Gone():
                self._gone.add(change.seat)

    def rows(self) -> Rows:
        """Those that are there."""
        seats: Rows = {}
        for (seat, user), (_, info) in self._rows.items():
            if info is not None and seat not in self._gone:
                seats.setdefault(seat, {})[user] = info
        return seats


class _Writes:
    """Of one seat, as they come."""

    __slots__ = ("latest", "of", "seen")

    def __init__(self, change: RowChange) -> None:
        self.latest, self.of, self.seen = change.write, change.of, change.of  # of the first one it is not known

    def follow(self, change: RowChange) -> bool:
        """Whether nothing is missing before it."""
        if change.write == self.latest:
            self.seen += 1
            return True
        whole = change.write == self.latest + 1 and self.seen >= self.of
        self.latest, self.of, self.seen = change.write, change.of, 1
        return whole


class Incoming:
    """What is told of one table. Owned by a seat, which calls `begin` when it reads the table."""

    def __init__(self) -> None:
        self.missed = True
        """Something was, so the table has to be read; what comes until then is in it."""
        self._early: list[Change] | None = None  # what came while it was read; None while it is not
        self._early_bytes = 0
        self.opened: dict[str, int] = {}
        """Marks of seats that read the table which have come while we did."""
        self._writes: dict[str, _Writes] = {}
        self._warned = False

    def begin(self) -> None:
        """The table is about to be read; what comes from now on may not be in it."""
        self._reset(missed=False, early=[])

    def lose(self) -> None:
        """Something may not have come."""
        self._reset(missed=True, early=None)

    def _reset(self, *, missed: bool, early: list[Change] | None) -> None:
        self.missed, self._early, self._early_bytes = missed, early, 0
        self.opened = {}
        self._writes = {}

    def finish(self, table: Table) -> None:
        """The table was read: put into it what has come since then."""
        for change in self._early or ():
            table.apply(change)
        self._early = None

    def take(self, entry: Entry) -> list[Change]:
        """What was told. Returns the change that it is, unless it has to wait or the table has to be read."""
        if self.missed:
            return []
        change = parse_change(entry)
        if change is None:
            self.warn(entry.key.encode(), len(entry.payload), "no change of who is present")
        if change is None or (isinstance(change, RowChange) and not self._follow(change)):
            self.lose()
            return []
        if self._early is None:
            return [change]
        self._keep(change, len(entry.payload))
        return []

    def _keep(self, change: Change, size: int) -> None:
        assert self._early is not None, "the table is read"
        self._early.append(change)
        self._early_bytes += size + _EARLY_BYTES
        if isinstance(change, Opened):
            self.opened[change.seat] = change.sequence
        if self._early_bytes > MAX_EARLY_BYTES:
            self.lose()

    def _follow(self, change: RowChange) -> bool:
        writes = self._writes.get(change.seat)
        if writes is None:
            self._writes[change.seat] = _Writes(change)
            return True
        return writes.follow(change)

    def forget(self, seat: str) -> None:
        """It will not be told of again."""
        self._writes.pop(seat, None)

    def forget_nodes(self, nodes: Collection[str]) -> None:
        """Nor will any seat of theirs."""
        self._writes = {seat: writes for seat, writes in self._writes.items() if node_of(seat) not in nodes}

    def warn(self, subject: bytes, size: int, what: str) -> None:
        """Once, as who puts it may go on."""
        if not self._warned:
            self._warned = True
            fields = {"bytes": size, "channel": subject}
            log.warning("dropped %d bytes on %r: %s", *fields.values(), what, extra=fields)
