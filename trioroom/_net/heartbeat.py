"""The heartbeat of all connections in one task: a wheel with two hands.

The ping hand asks the connections of one slot after another; the verdict hand follows
``ping_timeout`` behind and closes those of which nothing was heard since. A slot is drawn at random
from the connection's id, so first pings are spread over the whole interval and a million peers that
came back together do not pong together (RFC 6455 §5.5.2).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from trioroom.closecodes import CloseCode

if TYPE_CHECKING:
    from trioroom._net.connection import Connection

_SLOTS = 256  # of 0.1 s each at the default interval: about 4,000 pings a turn at a million connections
_SLICE = 256  # pings between two checkpoints


class Heartbeat:
    """One per server; ``run`` is a task of the server's nursery."""

    def __init__(self, ping_interval: float, ping_timeout: float) -> None:
        self._turn = ping_interval / _SLOTS
        self._behind = 0 if math.isinf(ping_interval) else math.ceil(_SLOTS * ping_timeout / ping_interval)
        self._timeout = ping_timeout
        self._slots: list[set[Connection]] = [set() for _ in range(_SLOTS)]

    def add(self, connection: Connection) -> None:
        """Watch ``connection`` until `remove`."""
        self._slots[hash(connection.id) % _SLOTS].add(connection)

    def remove(self, connection: Connection) -> None:
        """Watch it no more."""
        self._slots[hash(connection.id) % _SLOTS].discard(connection)

    async def run(self) -> None:
        """Turn the wheel until cancelled; with an infinite interval there is nothing to do."""
        hand = 0
        due = trio.current_time()
        while True:
            due += self._turn
            await trio.sleep_until(due)
            await self._judge(self._slots[(hand - self._behind) % _SLOTS])
            await self._ask(self._slots[hand])
            hand = (hand + 1) % _SLOTS

    async def _ask(self, slot: set[Connection]) -> None:
        for asked, connection in enumerate(list(slot), start=1):
            # A reader that is busy with a message would not see the pong: that is our slowness.
            if connection.transport.parked and connection.closing is None:
                connection.ping()
            if asked % _SLICE == 0:
                await trio.lowlevel.checkpoint()

    async def _judge(self, slot: set[Connection]) -> None:
        for judged, connection in enumerate(list(slot), start=1):
            # What came while the server was too busy to read it is a sign of life too.
            if not connection.heard and not connection.transport.has_unread():
                connection.close(
                    CloseCode.PING_TIMEOUT, f"no pong within {self._timeout:g} s; answer pings or reconnect"
                )
            if judged % _SLICE == 0:
                await trio.lowlevel.checkpoint()
