"""What stands in the log of who is present, as bytes that anybody who may write to the topic can have written.

A record's name says what it is about, so that compaction keeps the last one of each: a letter for the kind, then the
node, the number of one of its seats, the room and the user, as far as they matter. A record without a value, a
tombstone, takes back what the last one of its name said.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

import attrs

_ROW: Final = "r"
_BEAT: Final = "n"
_DEAD: Final = "d"
_GONE: Final = "g"
_SAID: Final = b"="  # before a row's info, which may be empty; a value that is empty is a tombstone

_NODE: Final = re.compile(r"[0-9a-f]{1,64}")
_SEAT: Final = re.compile(r"([0-9a-f]{1,64})\.([0-9]{1,15})")

Entry: TypeAlias = tuple[str, bytes | None]
"""Name and value of a record that is to be written."""


@attrs.frozen
class SeatId:
    """One room on one node."""

    node: str
    number: int
    room: str

    def __str__(self) -> str:
        return f"{self.node}.{self.number}"


@attrs.frozen
class Row:
    """What a seat shows of a user; ``info`` is None where that is taken back."""

    seat: SeatId
    user: str
    info: bytes | None


@attrs.frozen
class Beat:
    """A node lives, as it says again and again, or it has gone as it should."""

    node: str
    lives: bool


@attrs.frozen
class Dead:
    """Others have found that a node does not live: what it writes from here on counts for nothing. Taken back when
    nothing of it is left."""

    node: str
    is_dead: bool


@attrs.frozen
class Gone:
    """A seat is closed: all its rows are gone at once, and are taken back one by one after it. Then this is."""

    seat: SeatId
    is_gone: bool


Statement: TypeAlias = Row | Beat | Dead | Gone


def write(statement: Statement) -> Entry:
    """The record that says so."""
    match statement:
        case Row(seat, user, info):
            return f"{_ROW}{seat}/{_escape(seat.room)}/{_escape(user)}", None if info is None else _SAID + info
        case Beat(node, lives):
            return f"{_BEAT}{node}", _SAID if lives else None
        case Dead(node, is_dead):
            return f"{_DEAD}{node}", _SAID if is_dead else None
        case Gone(seat, is_gone):
            return f"{_GONE}{seat}/{_escape(seat.room)}", _SAID if is_gone else None


def read(name: bytes, value: bytes) -> Statement:
    """What a record says; a tombstone's ``value`` is empty.

    Raises:
        ValueError: it is none of ours.
    """
    if value and value[:1] != _SAID:
        raise ValueError("the value begins with something else")
    text = name.decode()
    kind, rest = text[:1], text[1:]
    if kind == _ROW:
        seat, room, user = rest.split("/")
        return Row(_seat(seat, room), _unescape(user), value[1:] if value else None)
    if kind == _GONE:
        seat, room = rest.split("/")
        return Gone(_seat(seat, room), bool(value))
    if kind in (_BEAT, _DEAD) and _NODE.fullmatch(rest):
        return Beat(rest, bool(value)) if kind == _BEAT else Dead(rest, bool(value))
    raise ValueError("the name is none of ours")


def _seat(seat: str, room: str) -> SeatId:
    match = _SEAT.fullmatch(seat)
    if match is None:
        raise ValueError("the seat is none of ours")
    return SeatId(match[1], int(match[2]), _unescape(room))


def _escape(text: str) -> str:
    """Without ``/``, so that names of rooms and users may have it; what is nothing but text stays readable."""
    return text.replace("%", "%25").replace("/", "%2F")


def _unescape(text: str) -> str:
    return text.replace("%2F", "/").replace("%25", "%")
