"""The answer to a v1 peer that asks who is in a room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioroom._net.room_presence import presents
from trioroom._wire.envelopes import Error, Ok, Who
from trioroom.room import MAX_PAGE

if TYPE_CHECKING:
    from trioroom.member import Member


def answer_who(request: Who, member: Member) -> Ok | Error:
    """A page of what has been announced in the room that ``member`` is in."""
    presence = member._active.presence
    if presence is None or presence.settings.count_only:
        what = "does not show who is in it" if presence is None else "shows how many are in it, not who"
        return Error(request.id, "unsupported", f"room {request.room!r} {what}")
    if not 1 <= request.limit <= MAX_PAGE:
        return Error(request.id, "bad_envelope", f"who: limit={request.limit} must be 1 to {MAX_PAGE}")
    page = presence.page(request.limit, request.after)
    return Ok(
        request.id,
        request.room,
        members=presents(page.users),
        version=page.version,
        count=page.count,
        more=page.more,
    )
