"""Draining: tell the peers, let outboxes empty and members leave, all by one deadline.

Peers are closed in slices, each with a slot of its own in which to come back (`trioroom._core.pace`): if all did so at
once, some other server would have to take them at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from trioroom._core.pace import TICK, Pace, plan_pace
from trioroom._wire.envelopes import Bye
from trioroom.closecodes import CloseCode

if TYPE_CHECKING:
    from trioroom._net.connection import Connection
    from trioroom._net.hub import Hub

REASON = "the server drains; reconnect"
_SLICE = 256  # closes between two checkpoints
_LAST_ANSWERS = 1.0  # seconds for peers whose request came as the last connections went


async def retire(hub: Hub, stop_listening: Callable[[], None]) -> bool:
    """Go from serving to nobody being connected; False when some had to be dropped.

    Peers that come within ``drain_delay`` are served: whoever sends them need not know yet that we are not ready.

    Args:
        stop_listening: called once that is over, and who comes is told to go elsewhere.
    """
    hub.retiring = True
    await trio.sleep(hub.settings.drain_delay)
    hub.draining = True
    stop_listening()
    return await drain(hub)


async def drain(hub: Hub) -> bool:
    """Close every connection with 4101 and wait for their ends; False when some outstayed ``drain_timeout``.

    Those are dropped then, whoever runs them. Cancelled, connections are left to end by themselves.
    """
    hub.draining = True
    settings = hub.settings
    connections = list(hub.connections)  # in no order: a room's members are anywhere in it
    pace = plan_pace(
        len(connections),
        rate=settings.reconnect_rate,
        timeout=settings.drain_timeout,
        close_timeout=settings.close_timeout,
    )
    with trio.move_on_after(settings.drain_timeout) as scope:
        await _close_all(connections, pace)
        await hub.wait_empty()
        with trio.move_on_after(_LAST_ANSWERS):
            await hub.wait_answered()
    if scope.cancelled_caught:
        for connection in list(hub.connections):
            connection.abort()
    return not scope.cancelled_caught


async def _close_all(connections: Sequence[Connection], pace: Pace) -> None:
    began = trio.current_time()
    closed = 0
    for tick in itertools.count(1):
        for number in range(closed, pace.due(tick - 1)):
            _close(connections[number], pace.after(number, trio.current_time() - began))
            if number % _SLICE == 0:
                await trio.lowlevel.checkpoint()
        closed = pace.due(tick - 1)
        if closed == len(connections):
            return
        await trio.sleep_until(began + tick * TICK)


def _close(connection: Connection, after: tuple[float, float]) -> None:
    """Say goodbye, to who speaks v1 with the slot in which to come back; others have the moment of the close itself."""
    farewell = b""
    if connection.encoding.codec is not None:
        farewell = connection.encoding.envelope(Bye(CloseCode.DRAIN, after))
    connection.close(CloseCode.DRAIN, REASON, farewell=farewell)
