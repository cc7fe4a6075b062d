"""How a connection comes in: what is known of it before its head is read."""

from __future__ import annotations

import attrs

from trioroom._core.admission import Place


@attrs.frozen
class Arrival:
    """Of one connection that has been let in."""

    place: Place
    """What it has to give back."""
    address: str | None = None
    """The peer's, where the socket has another one: a proxy told it. Or that of a trusted proxy, whose headers may tell
    whom it speaks for. None is whatever the socket says."""
    scheme: str | None = None
    """``https`` over TLS; None where a proxy may have ended that."""
    deadline: float | None = None
    """For the handshake, if it has begun before."""
