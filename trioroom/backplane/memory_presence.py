"""Who is in the rooms of one process: seats that see each other at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import attrs
import trio

from trioroom.backplane.base import PresenceListener, PresenceSeat


@attrs.define(eq=False)
class _Seat:
    """One room on one server. Its neighbours are all seats of the room, itself included."""

    name: str
    listener: PresenceListener
    neighbours: dict[str, _Seat]
    rows: dict[str, bytes] = attrs.field(factory=dict)
    is_open: bool = True

    def put(self, user: str, info: bytes) -> None:
        if self.is_open:
            self.rows[user] = info
            for other in self._others():
                other.listener.rows_changed(self.name, {user: info}, ())

    def remove(self, user: str) -> None:
        if self.is_open and self.rows.pop(user, None) is not None:
            for other in self._others():
                other.listener.rows_changed(self.name, {}, (user,))

    def leave(self) -> None:
        """The others are told, if they had ever heard of it."""
        self.is_open = False
        del self.neighbours[self.name]
        if self.rows:
            for other in self._others():
                other.listener.seat_gone(self.name)

    def _others(self) -> list[_Seat]:
        return [seat for seat in self.neighbours.values() if seat is not self]


class MemoryPresence:
    """The `PresenceStore` of `MemoryBackplane`."""

    def __init__(self) -> None:
        self._rooms: dict[str, dict[str, _Seat]] = {}
        self._numbers = count(1)

    @asynccontextmanager
    async def open(self, room: str, listener: PresenceListener, interval: float) -> AsyncIterator[PresenceSeat]:
        """A seat in ``room``; nothing waits for ``interval``. Entering is a checkpoint."""
        await trio.lowlevel.checkpoint()
        seats = self._rooms.setdefault(room, {})
        listener.resynced({seat.name: dict(seat.rows) for seat in seats.values()})
        seat = _Seat(str(next(self._numbers)), listener, seats)
        seats[seat.name] = seat
        try:
            yield seat
        finally:
            seat.leave()
            if not seats:
                del self._rooms[room]
