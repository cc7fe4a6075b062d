"""One room's rows of this node in the log, and what it is told of the others' rows."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeAlias

import trio

from trioroom.backplane.base import PresenceListener
from trioroom.backplane.kafka.presence_records import Row, SeatId, Statement
from trioroom.backplane.kafka.presence_table import Changes, Rows, SeatGone
from trioroom.backplane.own_rows import OwnRows

_REFRESH_INTERVAL = 86_400.0  # seconds after which, jittered, rows are written again: the topic may not be compacted

Write: TypeAlias = Callable[[Sequence[Statement]], Awaitable[None]]
"""Returns when the broker has all of it; raises BackplaneError if it may not."""


class Seat:
    """A `PresenceSeat`. ``id`` is another one after the node has become another."""

    def __init__(self, seat_id: SeatId, write: Write, listener: PresenceListener, interval: float) -> None:
        self.id = seat_id
        self.there: dict[str, None] = {}
        """Users whose rows may be in the log under this id."""
        self._own = OwnRows("kafka", str(seat_id), interval)
        self._write_statements = write
        self._listener = listener
        self._writing = False
        self._put_off_refresh()

    # -- our rows ------------------------------------------------------------------------------

    def put(self, user: str, info: bytes) -> None:
        """See `PresenceSeat`."""
        self._own.put(user, info)

    def remove(self, user: str) -> None:
        """See `PresenceSeat`."""
        self._own.remove(user)

    def rename(self, seat_id: SeatId) -> None:
        """All rows are written again under this id; others take back those of the old one."""
        self.id = seat_id
        self.there = {}
        self._own.rename(str(seat_id))

    async def run(self) -> None:
        """Until cancelled."""
        await self._own.run(self._write, self._leave)

    async def _write(self, seat: str, put: Mapping[str, bytes], removed: Sequence[str]) -> None:
        seat_id, there = self.id, self.there
        rows = [Row(seat_id, user, info) for user, info in put.items()]
        rows += [Row(seat_id, user, None) for user in removed if user in there]
        there.update(dict.fromkeys(put))
        self._writing = True
        try:
            await self._write_statements(rows)
        finally:
            self._writing = False
        for user in removed:
            there.pop(user, None)

    async def _leave(self, seat: str) -> None:
        await trio.lowlevel.checkpoint()

    def refresh(self) -> None:
        """Have all rows written again, if it is time for that."""
        if trio.current_time() >= self._refresh_at:
            self._own.mark(self._own.rows)
            self._put_off_refresh()

    def _put_off_refresh(self) -> None:
        # Rooms may have opened together.
        self._refresh_at = trio.current_time() + _REFRESH_INTERVAL * random.uniform(0.5, 1)

    # -- the others' rows ----------------------------------------------------------------------

    def hear(self, event: Changes | SeatGone) -> None:
        """Of a seat of this room; this one may have changed too."""
        if isinstance(event, SeatGone):
            self._listener.seat_gone(str(event.seat))
        elif event.seat != self.id:
            self._listener.rows_changed(str(event.seat), event.put, event.removed.keys())
        elif not self._writing:
            # Somebody else may have written that; or we have, before our last write, and then it costs one more.
            self.there.update(dict.fromkeys(event.put))
            rows = self._own.rows
            self._correct([user for user, info in event.put.items() if rows.get(user) != info])
            self._correct([user for user in event.removed if user in rows])

    def resync(self, seats: Mapping[SeatId, Rows]) -> None:
        """All rows of the room, as the log has them; ours are corrected if need be."""
        found = seats.get(self.id, {})
        self.there.update(dict.fromkeys(found))
        self._correct(self._own.compare(found))
        self._listener.resynced({str(seat): rows for seat, rows in seats.items() if seat != self.id})

    def _correct(self, users: Collection[str]) -> None:
        if users:  # else nothing is to be written, and the next change need not wait for an interval
            self._own.mark(users)
