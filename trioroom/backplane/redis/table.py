"""What the table of a room and its channel say, as bytes that anybody who may use the broker can have written.

Changes are numbered. Who has read the table follows them one by one; when one is missing, or is none, the table has to
be read again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import attrs
import msgspec

log = logging.getLogger("trioroom.backplane")
_MAX_DIGITS = 15  # of a version: the scripts count in doubles
MAX_EARLY: Final = 1_000
"""Changes that may wait while the table is read; beyond them it is read again."""
MAX_EARLY_BYTES: Final = 1 << 20
"""The same in bytes: of each room that is read, and after an outage those are all that a node has."""

Rows = dict[str, dict[str, bytes]]
"""Seat -> user -> what it shows of itself."""


class Change(msgspec.Struct, array_like=True, frozen=True):
    """What a seat has put and removed."""

    seat: str
    put: dict[str, bytes]
    removed: list[str]

    def encode(self) -> bytes:
        """As it is published, behind the version."""
        return b"+" + msgspec.msgpack.encode(self)


@attrs.frozen
class Gone:
    """A seat that has no rows any more."""

    seat: str


_change = msgspec.msgpack.Decoder(Change)


class Incoming:
    """The changes of one table in their order. Owned by a seat, which calls `begin` when it reads the table."""

    def __init__(self, table: bytes) -> None:
        self.missed = True
        """Something was, so the table has to be read; what comes until then is in it."""
        self._table = table
        self._version: int | None = None  # of the table as it is known; None until it has been read
        self._early: list[bytes] = []  # what came while it was read
        self._early_bytes = 0
        self._warned = False

    def begin(self) -> None:
        """The table is about to be read; what comes from now on may not be in it."""
        self._reset(missed=False)

    def lose(self) -> None:
        """Something may not have come."""
        self._reset(missed=True)

    def _reset(self, *, missed: bool) -> None:
        self.missed = missed
        self._version = None
        self._early = []
        self._early_bytes = 0

    def finish(self, version: int) -> list[Change | Gone]:
        """The table was read, and is of this version. Returns what has come since then."""
        if self.missed:
            return []
        early, self._early = self._early, []
        self._version = version
        changes: list[Change | Gone] = []
        for data in early:
            number = _version(data.partition(b":")[0])
            if number is None or number > version:  # else the table had it
                changes += self.take(data)
        return changes

    def take(self, data: bytes) -> list[Change | Gone]:
        """A message of the channel. Returns the change that it is, unless it has to wait or comes out of order."""
        if self.missed:
            return []
        if self._version is not None:
            return self._follow(self._version, data)
        self._early.append(data)
        self._early_bytes += len(data)
        if len(self._early) > MAX_EARLY or self._early_bytes > MAX_EARLY_BYTES:
            self.lose()
        return []

    def _follow(self, version: int, data: bytes) -> list[Change | Gone]:
        head, _, body = data.partition(b":")
        number = _version(head)
        if number is not None and number != version + 1:
            self.lose()  # a change is missing, or the table has begun anew
            return []
        change = None if number is None else _parse_change(body)
        if change is None:
            self._warn(data)
            self.lose()
            return []
        self._version = number
        return [change]

    def _warn(self, data: bytes) -> None:
        """Once, as what writes it may go on."""
        if not self._warned:
            self._warned = True
            fields = {"bytes": len(data), "channel": self._table}
            log.warning("dropped %d bytes on channel %r: no change of who is present", *fields.values(), extra=fields)


def _version(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) <= _MAX_DIGITS else None


def _parse_change(body: bytes) -> Change | Gone | None:
    try:
        match body[:1]:
            case b"+":
                return _change.decode(body[1:])
            case b"-":
                return Gone(body[1:].decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return None


def parse_rows(reply: Sequence[bytes]) -> tuple[int, Rows]:
    """Version and rows of the table; what is neither is somebody else's, and a version that is no number is none."""
    version = 0
    rows: Rows = {}
    for field, value in zip(reply[::2], reply[1::2], strict=True):
        seat, slash, user = field.decode(errors="replace").partition("/")
        if slash:
            rows.setdefault(seat, {})[user] = value
        elif field == b"v":
            version = _version(value) or 0
    return version, rows


def field_of(seat: str, user: str) -> bytes:
    """Where the row is in the table."""
    return f"{seat}/{user}".encode()


def node_of(seat: str) -> str:
    """Whose lease it hangs on."""
    return seat.partition(".")[0]
