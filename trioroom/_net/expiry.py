"""Connections that end at a time of their own: one task and a heap, no timer for each.

Most are gone before, or get more time. Their places in the heap stay until their time comes, without the connection,
and are cleared away when they are more than the rest.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from trioroom._net.connection import Connection

_SLICE = 256  # places between two checkpoints
_FEW = 64  # places that are not worth clearing away


@attrs.define(eq=False)
class _Place:
    deadline: float
    connection: Connection | None  # None once it is over or has another place

    def __lt__(self, other: _Place) -> bool:
        return self.deadline < other.deadline


class Expiry:
    """Calls ``end`` with each connection whose deadline has come; ``run`` is a task of the server's nursery."""

    def __init__(self, end: Callable[[Connection], None]) -> None:
        self._end = end
        self._heap: list[_Place] = []
        self._places: dict[Connection, _Place] = {}
        self._sooner = trio.Event()

    def __len__(self) -> int:
        return len(self._places)

    def watch(self, connection: Connection, deadline: float) -> None:
        """End ``connection`` at ``deadline``, on Trio's clock, and at no time that was said before."""
        self.forget(connection)
        place = self._places[connection] = _Place(deadline, connection)
        heapq.heappush(self._heap, place)
        if self._heap[0] is place:
            self._sooner.set()

    def forget(self, connection: Connection) -> None:
        """Do not end it."""
        if (place := self._places.pop(connection, None)) is None:
            return
        place.connection = None
        if len(self._heap) > 2 * len(self._places) + _FEW:
            self._heap = list(self._places.values())
            heapq.heapify(self._heap)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._sooner = trio.Event()
            with trio.move_on_at(self._heap[0].deadline if self._heap else math.inf):
                await self._sooner.wait()
            await self._end_those_due()

    async def _end_those_due(self) -> None:
        seen = 0
        while self._heap and self._heap[0].deadline <= trio.current_time():
            connection = heapq.heappop(self._heap).connection
            if connection is not None:
                del self._places[connection]
                self._end(connection)
            seen += 1
            if seen % _SLICE == 0:
                await trio.lowlevel.checkpoint()
