"""What a client tells its application."""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

from trioroom._core.history import Position
from trioroom._wire.message import Data
from trioroom.room import PresentUser


@attrs.frozen
class Message:
    """A message of a room."""

    data: Data
    """What was published or sent."""
    sender: str | None = None
    """The id of the member who caused it, where there was one."""
    position: Position | None = None
    """Its place in the room's history; None in rooms without one, and of what the room sent to this member alone."""


@attrs.frozen
class Gap:
    """Messages of a room are missing here."""

    reason: str
    """``reconnect`` (while there was no connection), ``inbox`` (this client was too slow), or what the server says."""
    lost: int | None = None
    """How many, where that is known."""
    position: Position | None = None
    """What the next message follows, where that is known."""


@attrs.frozen
class PresenceDiff:
    """Who is in a room has changed; `ClientRoom.present` is up to date already.

    The first one names all who are in it, and one after a reconnect what differs from before.
    """

    joined: tuple[PresentUser, ...]
    """Those who came, and those whose ``info`` is another now."""
    left: tuple[str, ...]
    """The users who went."""
    count: int
    """Users in the room, on all servers."""


@attrs.frozen
class Rejoined:
    """The room has been joined again on another connection."""

    recovered: bool
    """All that was missed follows; else a `Gap` does."""
    state: object = None
    """What the room's ``on_join`` returned this time."""


Event: TypeAlias = Message | Gap | PresenceDiff | Rejoined
"""What `ClientRoom.events` yields."""


@attrs.frozen
class ClientState:
    """How a client is."""

    name: Literal["connecting", "open", "waiting", "closed"]
    """``waiting`` is for the next try to connect; ``closed`` is for good."""
    after: float | None = None
    """Seconds until the next try, while it waits for that."""
    error: Exception | None = None
    """Why there is no connection; None when the application has closed the client, or there has been no try yet."""
