"""Who is in rooms on other nodes: a log of its own that all nodes write and read, and a table of it on each node.

The topic has one partition, so that all nodes see one order, and what it says of anybody is true for all in the same
place: that a user came, that a seat was closed, that a node is dead. A node that has not been heard for a lease is
declared dead in the log by those who live; who finds itself there goes on as another node.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

import trio

from trioroom.backplane.background import run_in_background
from trioroom.backplane.base import PresenceListener, PresenceSeat
from trioroom.backplane.kafka.log import Log
from trioroom.backplane.kafka.presence_beats import Beats
from trioroom.backplane.kafka.presence_follower import PARTITION, Follower
from trioroom.backplane.kafka.presence_records import Gone, Row, SeatId, Statement, write
from trioroom.backplane.kafka.presence_seat import Seat
from trioroom.backplane.kafka.presence_table import News, SeatGone
from trioroom.backplane.kafka.records import PRESENCE, Place
from trioroom.backplane.own_rows import AT_ONCE
from trioroom.backplane.removals import Removals

log = logging.getLogger("trioroom.backplane")
_MOST_ON_THE_WAY = 4 * AT_ONCE  # records: they fit into the producer's queue, and a beat finds room behind them

_REFRESH_LOOK = 60.0  # seconds between two looks whose rows are to be written again


class KafkaPresence:
    """What `KafkaBackplane.presence` is. Made before its ``log`` runs; `run` is for when that is up."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._line = trio.Lock()  # of writes that wait for room
        self._on_the_way = 0  # records
        self._confirmed = trio.Event()
        self._follower = Follower(log, self._tell, self._resync)
        self._beats = Beats(log, self._follower, self._append, self._write)
        self._removals = Removals("kafka", self._remove, self._change_id)
        self._numbers = count(1)
        self._seats: dict[str, dict[Seat, None]] = {}  # by room
        self._closed: dict[str, Seat] = {}  # of which there may be something in the log

    @property
    def node(self) -> str:
        """What this node is called in the log now."""
        return self._beats.node

    @asynccontextmanager
    async def open(self, room: str, listener: PresenceListener, interval: float) -> AsyncIterator[PresenceSeat]:
        """As `trioroom.backplane.base.PresenceStore.open`; entered when the log has been read to its end.

        Raises:
            BackplaneUnavailable: the broker cannot be reached.
            BackplaneError: it refuses.
        """
        await self._follower.catch_up()
        seat = Seat(self._new_id(room), self._write, listener, interval)
        seat.resync(self._follower.table.rows(room))
        self._seats.setdefault(room, {})[seat] = None
        try:
            async with run_in_background(seat.run):
                yield seat
        finally:
            del self._seats[room][seat]
            if not self._seats[room]:
                del self._seats[room]
            if seat.there:
                self._closed[str(seat.id)] = seat
                await self._removals.close(b"", [str(seat.id)])

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._removals.run)
            nursery.start_soon(self._beats.run)
            nursery.start_soon(self._refresh)

    async def _refresh(self) -> None:
        # Of all seats: a task for each would be a third of what it takes to close thousands.
        while True:
            await trio.sleep(_REFRESH_LOOK)
            for seats in self._seats.values():
                for seat in seats:
                    seat.refresh()

    # -- writing ---------------------------------------------------------------------------------

    async def _append(self, statements: Sequence[Statement]) -> Place:
        records = [(PRESENCE + name.encode(), value) for name, value in map(write, statements)]
        return await self._log.produce_all(PARTITION, records)

    async def _write(self, statements: Sequence[Statement]) -> None:
        async with self._line:  # counted by records and not by writes: thousands of rooms have few rows each
            while self._on_the_way and self._on_the_way + len(statements) > _MOST_ON_THE_WAY:
                self._confirmed = trio.Event()
                await self._confirmed.wait()
            self._on_the_way += len(statements)
        try:
            if statements:
                await self._append(statements)
        finally:
            self._on_the_way -= len(statements)
            self._confirmed.set()

    async def _remove(self, _: bytes, name: str) -> None:
        """What is left of a closed seat: at once for all who see it, and then row by row."""
        if (seat := self._closed.get(name)) is not None:  # else its node is another one now
            statements: list[Statement] = [Row(seat.id, user, None) for user in seat.there]
            if len(statements) > 1:  # else it goes at once as it is
                statements = [Gone(seat.id, is_gone=True), *statements, Gone(seat.id, is_gone=False)]
            for start in range(0, len(statements), AT_ONCE):
                await self._write(statements[start : start + AT_ONCE])
            self._closed.pop(name, None)

    # -- what the follower calls -----------------------------------------------------------------

    def _tell(self, news: News) -> None:
        for event in news.events:
            for seat in self._seats.get(event.seat.room, ()):
                if isinstance(event, SeatGone) and event.seat == seat.id:  # others say so, and take no more rows of it
                    seat.rename(self._new_id(seat.id.room))
                else:
                    seat.hear(event)
        if self.node in news.dead:
            what = "kafka: node %s was taken for dead by others, which have not heard it"
            log.warning(what, self.node, extra={"node": self.node})
            self._change_id()

    def _resync(self) -> None:
        table = self._follower.table
        if (node := table.nodes.get(self.node)) is not None and node.dead_since is not None:
            self._change_id()
        for room, seats in self._seats.items():
            for seat in seats:
                seat.resync(table.rows(room))
        self._beats.begin()

    # -- our ids ---------------------------------------------------------------------------------

    def _new_id(self, room: str) -> SeatId:
        return SeatId(self.node, next(self._numbers), room)

    def _change_id(self) -> None:
        self._beats.change_id()
        self._closed.clear()  # others take that back
        for room, seats in self._seats.items():
            for seat in seats:
                seat.rename(self._new_id(room))
