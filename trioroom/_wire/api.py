"""The JSON of the HTTP API: what is sent to it, what it answers, and where.

The OpenAPI document is made of what stands here, docstrings included; see `trioroom._wire.openapi`.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from trioroom._core.history import Position
from trioroom._wire.control import MAX_REASON
from trioroom._wire.envelopes import Encoding, HistoryItem, Present
from trioroom.closecodes import CloseCode

PREFIX = "/api/v1/"
MAX_BATCH = 1_000
"""Publications in one request."""
MAX_PAGE = 1_000

Limit: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_PAGE, description="How many at most.")]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
Reason: TypeAlias = Annotated[
    str, Meta(max_length=MAX_REASON, description="Text for the peer; a close frame has room for 123 bytes.")
]
Nodes: TypeAlias = Annotated[int, Meta(ge=1, description="Servers that have answered, this one included.")]
Silent: TypeAlias = Annotated[int, Meta(ge=0, description="Servers that are there and have not answered in time.")]
MaybePosition: TypeAlias = Position | None

# -- requests --------------------------------------------------------------------------------------


class PublicationRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to publish."""

    data: Annotated[msgspec.Raw, Meta(description="Any JSON value. Text reaches plain members as it is.")]
    encoding: Annotated[Encoding | None, Meta(description="Says that `data` is base64 text and stands for bytes.")] = (
        None
    )
    key: Annotated[str | None, Meta(description="What this is the latest of, in rooms that keep the latest.")] = None
    publication_id: Annotated[
        str | None, Meta(description="Sent again with it, the same counts once. 1 to 128 characters, best at random.")
    ] = None


class RoomPublicationRequest(PublicationRequest, frozen=True, kw_only=True):
    """What to publish, and where."""

    room: Annotated[str, Meta(description="The whole name, not percent-encoded here.")]


class BatchRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Publications. Those to one room go out in this order; between rooms there is none."""

    publications: Annotated[list[RoomPublicationRequest], Meta(min_length=1, max_length=MAX_BATCH)]


class DisconnectRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose connections to close: those of a user, or the one of an id."""

    user: Annotated[str | None, Meta(description="Who it is to the rooms.")] = None
    connection: Annotated[str | None, Meta(description="The id that messages have as `from`.")] = None
    reason: Reason = ""
    code: Annotated[int, Meta(description="The close code; one below 4100 has clients stay away.")] = int(
        CloseCode.DISCONNECTED
    )


class KickRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to put out of the room."""

    user: str
    reason: Reason = ""


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing can stand in the query."""


class RoomsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which rooms to list."""

    prefix: Annotated[str, Meta(description="How their names begin.")] = ""
    after: Annotated[
        str, Meta(description="The name behind which the page begins: the last one of the page before.")
    ] = ""
    limit: Limit = 100
    here: Annotated[bool, Meta(description="Ask this server alone, and no others.")] = False


class PresenceQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which users to list."""

    after: Annotated[str | None, Meta(description="The user behind which the page begins.")] = None
    limit: Limit = 100


class HistoryQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which messages to list; without `before` the latest."""

    before: Annotated[
        Annotated[str, Meta(pattern=r"^[^:]+:[0-9]{1,15}$")] | None,
        Meta(description="Where the page ends, as `EPOCH:OFFSET`: the epoch of `position`, the offset of a message."),
    ] = None
    limit: Limit = 50


# -- answers -----------------------------------------------------------------------------------------


class ErrorDetail(msgspec.Struct, frozen=True):
    """What went wrong: `code` is for programs, `message` for people."""

    code: str
    message: str


class ErrorResponse(msgspec.Struct, frozen=True):
    """Why the request was not served."""

    error: ErrorDetail


class PublicationResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The broker has it. The position is there if the room has a history."""

    position: MaybePosition = None


class BatchResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one publication: without `error` the broker has it."""

    position: MaybePosition = None
    error: ErrorDetail | None = None


class BatchResponse(msgspec.Struct, frozen=True):
    """One result for each publication, in the same order."""

    results: list[BatchResult]


class RoomSummary(msgspec.Struct, frozen=True):
    """A room and how many members it has, on all servers that answered."""

    name: str
    members: Count


class RoomsResponse(msgspec.Struct, frozen=True):
    """Active rooms, in the order of their names."""

    rooms: list[RoomSummary]
    more: Annotated[bool, Meta(description="Whether there are some behind these.")]
    nodes: Nodes
    silent: Silent


class RoomHere(msgspec.Struct, frozen=True):
    """The room on the server that answers, since it was opened there."""

    members: Count
    overflow: Annotated[str, Meta(description="What happens when too much waits for a member.")]
    waiting: Annotated[int, Meta(ge=0, description="Publications that wait for the fan-out.")]
    offered: Annotated[int, Meta(ge=0, description="Messages times the members they were for.")]
    sent: Count
    queued: Count
    dropped: Count
    unsent: Count
    slow_consumers: Count


class RoomResponse(msgspec.Struct, frozen=True):
    """A room. `members` are connections on all servers that answered."""

    name: str
    members: Count
    users: Annotated[int | None, Meta(description="Who is present; null in rooms without presence.")]
    position: Annotated[MaybePosition, Meta(description="Where the history ends; null in rooms that have none.")]
    here: Annotated[RoomHere | None, Meta(description="Null while nobody has joined it on this server.")]
    nodes: Nodes
    silent: Silent


class PresenceResponse(msgspec.Struct, frozen=True):
    """Who is in the room, on all servers, in the order of user ids."""

    members: list[Present]
    count: Annotated[int, Meta(ge=0, description="Users in all.")]
    more: Annotated[bool, Meta(description="Whether there are some behind these.")]


class HistoryResponse(msgspec.Struct, frozen=True):
    """Messages that the room keeps, oldest first. `position` is where the history ends now."""

    messages: list[HistoryItem]
    position: Position
    more: Annotated[bool, Meta(description="Whether there are older ones.")]


class RevocationResponse(msgspec.Struct, frozen=True):
    """Who is gone. A silent server does it when it hears of it."""

    connections: Annotated[int, Meta(ge=0, description="Connections that were closed, or put out of the room.")]
    nodes: Nodes
    silent: Silent


class InfoResponse(msgspec.Struct, frozen=True):
    """The server that answers."""

    version: str
    node: Annotated[str, Meta(description="Its id, another one each time it starts.")]
    uptime: Annotated[float, Meta(description="Seconds.")]
    connections: Count
    rooms: Annotated[int, Meta(ge=0, description="Rooms that are active on it.")]
    others: Annotated[int, Meta(ge=0, description="Other servers that it knows of.")]
    ready: Annotated[bool, Meta(description="Whether publications come through; as `/readyz`.")]
