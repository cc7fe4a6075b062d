"""Hooks that raise: what the log says of that, and what the peer gets to know."""

from __future__ import annotations

import logging

from trioroom._core.causes import first_of
from trioroom.closecodes import CloseCode
from trioroom.errors import BackplaneUnavailable, RequestRefused

log = logging.getLogger("trioroom.connection")
UNAVAILABLE = "the other servers are out of reach, or the room is behind; come back later"


def is_unavailable(error: ExceptionGroup[Exception]) -> bool:
    """Whether it is all because the backplane cannot be reached now."""
    return error.split(BackplaneUnavailable)[1] is None


def refusal_in(error: Exception) -> RequestRefused | None:
    """What the hook refuses, if that is all that it raised.

    What a client in the hook was refused by some other server is not meant for the member.
    """
    refusal = first_of(error)
    group = error if isinstance(error, ExceptionGroup) else ExceptionGroup("raised", [error])
    others = group.split(lambda each: isinstance(each, RequestRefused) and not each.by_peer)[1]
    return refusal if isinstance(refusal, RequestRefused) and others is None else None


def log_failure(connection: str, hook: str, error: ExceptionGroup[Exception], room: str) -> tuple[CloseCode, str]:
    """Log that ``hook`` raised, with the traceback if that is its own fault; what to close the connection with."""
    fields = {"connection": connection, "hook": hook, "room": room}
    if is_unavailable(error):
        # At DEBUG, as the backplane has said so once for all.
        log.debug("%s: %s failed: %s", connection, hook, first_of(error), extra=fields)
        return CloseCode.TRY_AGAIN_LATER, UNAVAILABLE
    log.error("%s: %s failed", connection, hook, exc_info=error, extra=fields)
    return CloseCode.INTERNAL_ERROR, f"{hook} failed; the server's log tells more"
