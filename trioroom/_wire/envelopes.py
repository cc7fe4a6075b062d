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
    id: Id
    token: str


class Join(msgspec.Struct, frozen=True, tag="join"):
    id: Id
    room: str
    position: Position | None = None


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    id: Id
    room: str


class Publish(msgspec.Struct, frozen=True, tag="publish"):
    room: str
    data: msgspec.Raw
    id: Id | None = None
    encoding: Encoding | None = None
    publication_id: str | None = None


class Call(msgspec.Struct, frozen=True, tag="call"):
    id: Id
    room: str
    data: msgspec.Raw
    timeout: float | None = None
    encoding: Encoding | None = None


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    id: Id


class History(msgspec.Struct, frozen=True, tag="history"):
    id: Id
    room: str
    limit: int = 50
    after: Position | None = None
    before: Position | None = None


class Who(msgspec.Struct, frozen=True, tag="who"):
    id: Id
    room: str
    limit: int = 100
    after: str | None = None


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    id: Id


Request: TypeAlias = Auth | Join | Leave | Publish | Call | Cancel | History | Who | Ping


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    connection: str
    ping_interval: float | None  # null: infinite, for which JSON has no word
    max_message_bytes: int
    version: int = 1


class HistoryItem(msgspec.Struct, frozen=True, omit_defaults=True, rename={"sender": "from"}):
    offset: int
    data: object
    sender: str | None = None
    encoding: Encoding | None = None


class Present(msgspec.Struct, frozen=True, omit_defaults=True):
    user: str
    info: object = None


class Ok(msgspec.Struct, frozen=True, tag="ok", omit_defaults=True):
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


class Error(msgspec.Struct, frozen=True, tag="error"):
    id: Id | None
    code: str
    message: str
    retry: bool = False
    after: float | None = None


class Push(msgspec.Struct, frozen=True, tag="message", omit_defaults=True, rename={"sender": "from"}):
    room: str
    data: object
    sender: str | None = None
    offset: int | None = None
    encoding: Encoding | None = None


class Kicked(msgspec.Struct, frozen=True, tag="kicked"):
    room: str
    code: int
    reason: str


class Gap(msgspec.Struct, frozen=True, tag="gap"):
    room: str
    reason: str
    lost: int | None = None
    position: Position | msgspec.UnsetType = msgspec.UNSET


class PositionChanged(msgspec.Struct, frozen=True, tag="position"):
    room: str
    position: Position


class Presence(msgspec.Struct, frozen=True, tag="presence", omit_defaults=True):
    room: str
    version: int
    count: int
    joined: list[Present] | None = None
    left: list[str] | None = None


class Bye(msgspec.Struct, frozen=True, tag="bye"):
    code: int
    after: tuple[float, float]


Envelope: TypeAlias = Hello | Ok | Error | Push | Kicked | Gap | PositionChanged | Presence | Bye
"""What a server says."""
