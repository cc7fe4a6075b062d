"""Protocol v1: the records around messages, in JSON and MessagePack.

Requests carry ``id`` and get exactly one ``ok`` or ``error``; pushes carry none, and are the same
bytes for all members of a room. A frame holds one envelope or an array of them.

Binary data has no place in JSON: there it travels as base64 text beside ``"encoding":"base64"``.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from trioroom._core.history import Position

Id: TypeAlias = int | str
Encoding: TypeAlias = Literal["base64"]


class Auth(msgspec.Struct, frozen=True, tag="auth"):
    """Who the peer is, to the rooms that it joins from now on."""

    id: Id
    token: str

    def __repr__(self) -> str:
        return f"Auth(id={self.id!r})"  # the token is nobody's business


class Join(msgspec.Struct, frozen=True, tag="join"):
    """Come into a room; with a position, go on from there."""

    id: Id
    room: str
    position: Position | None = None


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """Go out of a room."""

    id: Id
    room: str


class Publish(msgspec.Struct, frozen=True, tag="publish"):
    """A message for a room; without ``id`` only an error is answered."""

    room: str
    data: msgspec.Raw
    id: Id | None = None
    encoding: Encoding | None = None
    publication_id: str | None = None


class Call(msgspec.Struct, frozen=True, tag="call"):
    """A question to a room."""

    id: Id
    room: str
    data: msgspec.Raw
    timeout: float | None = None
    encoding: Encoding | None = None


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Give up the call of this ``id``."""

    id: Id


class History(msgspec.Struct, frozen=True, tag="history"):
    """A page of what a room keeps: the latest, or those before or after a position."""

    id: Id
    room: str
    limit: int = 50
    after: Position | None = None
    before: Position | None = None


class Who(msgspec.Struct, frozen=True, tag="who"):
    """A page of who is in a room, from behind the user ``after``."""

    id: Id
    room: str
    limit: int = 100
    after: str | None = None


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Whether the connection lives."""

    id: Id


Request: TypeAlias = Auth | Join | Leave | Publish | Call | Cancel | History | Who | Ping
"""Whatever a client may send."""


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The server's first envelope. ``ping_interval`` is null where the server does not ping."""

    connection: str
    ping_interval: float | None
    max_message_bytes: int
    version: int = 1


class HistoryItem(msgspec.Struct, frozen=True, omit_defaults=True, rename={"sender": "from"}):
    """A message in a page of the history."""

    offset: int
    data: object
    sender: str | None = None
    encoding: Encoding | None = None


class Present(msgspec.Struct, frozen=True, omit_defaults=True):
    """A user in a room."""

    user: str
    info: object = None


class Ok(msgspec.Struct, frozen=True, tag="ok", omit_defaults=True):
    """A request has been served; what has been asked for is in it."""

    id: Id
    room: str | None = None
    state: object = None
    position: Position | None = None
    recovered: bool | None = None
    data: object = None
    messages: list[HistoryItem] | None = None
    members: list[Present] | None = None
    version: int | None = None
    count: int | None = None
    more: bool | None = None
    expires_in: float | None = None


class Error(msgspec.Struct, frozen=True, tag="error"):
    """A request has not been served. ``id`` is null where it had none that could be read."""

    id: Id | None
    code: str
    message: str
    retry: bool = False
    after: float | None = None


class Push(msgspec.Struct, frozen=True, tag="message", omit_defaults=True, rename={"sender": "from"}):
    """A publication, or what a room sent to this member alone."""

    room: str
    data: object
    sender: str | None = None
    offset: int | None = None
    encoding: Encoding | None = None


class Kicked(msgspec.Struct, frozen=True, tag="kicked"):
    """Put out of a room; the connection stays."""

    room: str
    code: int
    reason: str


class Gap(msgspec.Struct, frozen=True, tag="gap"):
    """Messages of the room are missing here; with ``position``, the next one follows that."""

    room: str
    reason: str
    lost: int | None = None
    position: Position | msgspec.UnsetType = msgspec.UNSET


class PositionChanged(msgspec.Struct, frozen=True, tag="position"):
    """The history goes on in another epoch, and nothing is missing: what follows comes after this."""

    room: str
    position: Position


class Presence(msgspec.Struct, frozen=True, tag="presence", omit_defaults=True):
    """Who is in the room has changed; without lists, by more than is told."""

    room: str
    version: int
    count: int
    joined: list[Present] | None = None
    left: list[str] | None = None


class Bye(msgspec.Struct, frozen=True, tag="bye"):
    """The connection closes with ``code``; come back after so many seconds, at random between the two."""

    code: int
    after: tuple[float, float]


FromServer: TypeAlias = Hello | Ok | Error | Push | Kicked | Gap | PositionChanged | Presence | Bye
"""Whatever a server may send."""
