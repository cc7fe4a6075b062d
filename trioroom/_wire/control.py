"""What servers that a backplane links say to each other, in MessagePack.

It comes from a broker that other programs may reach, and from servers of other versions: what cannot be read is an
error that the reader counts, and no more than that.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from trioroom._core.snapshot import Snapshot
from trioroom.closecodes import is_valid_on_wire

VERSION = 1
MAX_REASON = 1_000
"""Characters of a reason; a close frame cuts it to its own size."""
MAX_ROOMS = 1_000
"""Rooms of one answer."""

Reason: TypeAlias = Annotated[str, Meta(max_length=MAX_REASON)]


class Disconnect(msgspec.Struct, frozen=True, tag="disconnect"):
    """Close the connections of a user, or the one of this id."""

    code: int
    reason: Reason
    user: str | None = None
    connection: str | None = None


class Kick(msgspec.Struct, frozen=True, tag="kick"):
    """Put a user out of a room."""

    room: str
    user: str
    reason: Reason


class FindRooms(msgspec.Struct, frozen=True, tag="find_rooms"):
    """Which rooms are active, in the order of their names, from behind the name ``after``."""

    prefix: str
    after: str
    limit: Annotated[int, Meta(ge=1, le=MAX_ROOMS)]


class CountMembers(msgspec.Struct, frozen=True, tag="count_members"):
    """How many members a room has."""

    room: str


class Look(msgspec.Struct, frozen=True, tag="look"):
    """How the server does."""


Order: TypeAlias = Disconnect | Kick
"""What is to reach also servers that are out of touch for a while."""
Command: TypeAlias = Disconnect | Kick | FindRooms | CountMembers | Look
"""Whatever one server may ask of the others."""


class Done(msgspec.Struct, frozen=True, tag="done"):
    """So many connections or members were concerned."""

    count: int


class Found(msgspec.Struct, frozen=True, tag="found"):
    """Active rooms with how many members each has."""

    rooms: list[tuple[str, int]]
    more: bool


class Seen(msgspec.Struct, frozen=True, tag="seen"):
    """What it looks like."""

    snapshot: Snapshot


Result: TypeAlias = Done | Found | Seen


class Asked(msgspec.Struct, frozen=True, tag="asked"):
    """One server to all."""

    node: str
    """Who asks."""
    number: int
    """By which the answers are told from those to other questions of that node."""
    command: Command
    version: int = VERSION


class Answered(msgspec.Struct, frozen=True, tag="answered"):
    """One server to another."""

    node: str
    """Who answers."""
    number: int
    result: Result
    version: int = VERSION


_decoder: msgspec.msgpack.Decoder[Asked | Answered] = msgspec.msgpack.Decoder(Asked | Answered)
encode_control = msgspec.msgpack.encode


def decode_control(payload: bytes) -> Asked | Answered:
    """The reverse of `encode_control`.

    Raises:
        ValueError: another program wrote it, or another version.
    """
    try:
        message = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ValueError(str(exc)) from exc
    if message.version != VERSION:
        raise ValueError(f"version {message.version} is not spoken here")
    if isinstance(message, Asked) and isinstance(message.command, Disconnect):
        _check_disconnect(message.command)
    return message


def _check_disconnect(command: Disconnect) -> None:
    if not is_valid_on_wire(command.code):
        raise ValueError(f"close code {command.code} cannot go over the wire")
    if (command.user is None) is (command.connection is None):
        raise ValueError("a user or a connection is to be named")
