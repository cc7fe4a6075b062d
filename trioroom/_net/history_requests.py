"""What a v1 peer may ask about the history of a room it is in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioroom._net.failures import UNAVAILABLE
from trioroom._wire.envelopes import Error, History, Ok
from trioroom.errors import BackplaneUnavailable, PositionLost

if TYPE_CHECKING:
    from trioroom._core.history import Position
    from trioroom._wire.codec import Codec
    from trioroom.member import Member


def live_position(member: Member) -> Position | None:
    """Where the member's room is now; None where it has no history."""
    history = member._active.history
    return None if history is None else history.window.position


async def answer_history(request: History, member: Member, codec: Codec) -> Ok | Error:
    """A page, or why there is none."""
    room = member.room
    if room.history is None:
        return Error(request.id, "unsupported", f"room {request.room!r} keeps no history")
    try:
        page = await room.read_history(request.limit, before=request.before, after=request.after)
    except ValueError as exc:
        return Error(request.id, "bad_envelope", f"history: {exc}")
    except PositionLost as exc:
        return Error(request.id, "position_lost", str(exc))
    except BackplaneUnavailable:
        return Error(request.id, "unavailable", UNAVAILABLE, retry=True)
    items = [codec.history_item(message.offset, message.data, message.sender) for message in page.messages]
    return Ok(request.id, request.room, position=page.position, messages=items, more=page.more)
