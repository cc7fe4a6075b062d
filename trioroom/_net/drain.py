"""Draining: tell the peers, let outboxes empty and members leave, all by one deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trioroom._wire.envelopes import Bye
from trioroom.closecodes import CloseCode

if TYPE_CHECKING:
    from trioroom._net.hub import Hub

RECONNECT_AFTER = (0.8, 5.0)
"""Seconds between which a peer should draw the moment it comes back: not all at once."""
_SLICE = 256  # closes between two checkpoints


async def drain(hub: Hub, timeout: float) -> bool:
    """Close every connection with 4101 and wait for their ends; False when some outstayed ``timeout``.

    Those are dropped then, whoever runs them. The caller has stopped accepting. Cancelled, connections
    are left to end by themselves.
    """
    hub.draining = True
    with trio.move_on_after(timeout) as scope:
        for closed, connection in enumerate(list(hub.connections), start=1):
            if connection.encoding.codec is not None:
                connection.send_frame(connection.encoding.envelope(Bye(CloseCode.DRAIN, RECONNECT_AFTER)))
            connection.close(CloseCode.DRAIN, "the server drains; reconnect")
            if closed % _SLICE == 0:
                await trio.lowlevel.checkpoint()
        await hub.wait_empty()
    if scope.cancelled_caught:
        for connection in list(hub.connections):
            connection.abort()
    return not scope.cancelled_caught
