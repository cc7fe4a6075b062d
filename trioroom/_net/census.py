"""A walk over all rooms and all outboxes of a server, in slices: there may be very many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

import trio

from trioroom._core.leaders import Leaders, take_in_turn
from trioroom._core.outbox import Outbox
from trioroom._core.overflow import sum_of
from trioroom._core.snapshot import MAX_ROWS, BusyRoom, SlowConnection, clip

if TYPE_CHECKING:
    from trioroom._core.budget import Queue
    from trioroom._core.overflow import Overflow, Tally
    from trioroom._net.active_room import ActiveRoom
    from trioroom._net.hub import Hub

T = TypeVar("T")
_SLICE = 256  # rooms or outboxes between two checkpoints, some 0.3 ms


class Census:
    """One walk, and what it has found.

    Counts never fall from one walk to the next: those of closed rooms and the list of the others are of one moment,
    and a room that is closed while we walk goes on counting where it did.
    """

    def __init__(self, hub: Hub) -> None:
        self.tallies: dict[Overflow, Tally] = hub.tallies_of_closed_rooms()
        """Where the messages of all rooms went, by their policy."""
        self.cost = 0.0
        """Seconds that the walk took, without what others did meanwhile."""
        self._rooms = list(hub.rooms.values())
        self._outboxes = hub.limits.budget.queues()
        self._largest: Leaders[ActiveRoom] = Leaders(MAX_ROWS)
        self._busiest: Leaders[ActiveRoom] = Leaders(MAX_ROWS)
        self._latest: Leaders[ActiveRoom] = Leaders(MAX_ROWS)
        self._fattest: Leaders[Outbox] = Leaders(MAX_ROWS)

    async def run(self) -> None:
        """Look at everything once."""
        await self._walk(self._rooms, self._look_at_rooms)
        await self._walk(self._outboxes, self._look_at_outboxes)

    async def _walk(self, all_of_them: Sequence[T], look: Callable[[Sequence[T]], None]) -> None:
        for start in range(0, len(all_of_them), _SLICE):
            begun = perf_counter()
            look(all_of_them[start : start + _SLICE])
            self.cost += perf_counter() - begun
            await trio.lowlevel.checkpoint()

    def _look_at_rooms(self, rooms: Sequence[ActiveRoom]) -> None:
        for policy, tally in self.tallies.items():
            if tallies := [room.tally for room in rooms if room.room.overflow is policy]:
                tally.add(sum_of(tallies))
        largest, busiest, latest = self._largest, self._busiest, self._latest
        for room in rooms:
            if (members := room.member_count) > largest.floor:
                largest.put(members, room)
            if (offered := room.tally.offered) > busiest.floor:
                busiest.put(offered, room)
            if (waiting := len(room.channel)) > latest.floor:
                latest.put(waiting, room)

    def _look_at_outboxes(self, queues: Sequence[Queue]) -> None:
        for queue in queues:
            if isinstance(queue, Outbox):
                self._fattest.put(queue.queued_bytes, queue)

    def busy_rooms(self) -> list[BusyRoom]:
        """Those that are behind, those with the most members and those with the most deliveries, in turn."""
        rooms = take_in_turn((self._latest, self._largest, self._busiest), MAX_ROWS)
        return [
            BusyRoom(clip(room.room.name), room.member_count, len(room.channel), room.tally.offered) for room in rooms
        ]

    def slow_connections(self) -> list[SlowConnection]:
        """Those for which most waits, by what does so now. One that joins a room may be here twice."""
        now = trio.current_time()
        lags = [(outbox.connection, outbox.lag(now)) for outbox in self._fattest]
        return [SlowConnection(id, lag.messages, lag.queued_bytes, lag.age) for id, lag in lags if lag.messages]
