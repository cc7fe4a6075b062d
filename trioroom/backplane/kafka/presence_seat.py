"""One room's rows of this node in the log, and what it is told of the others' rows."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import Final, TypeAlias

import trio

from trioroom.backplane.base import PresenceListener
from trioroom.backplane.kafka.presence_records import Row, SeatId, Statement
from trioroom.backplane.kafka.presence_table import Changes, Rows, SeatGone
from trioroom.errors import BackplaneError, BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
RETRY_INTERVAL: Final = 0.5
"""Seconds between two attempts to write, beside what the link waits."""
ROWS_AT_ONCE: Final = 500
"""Of one write, so that other seats get their turn."""
_REFRESH_INTERVAL = 86_400.0  # seconds after which, jittered, rows are written again: the topic may not be compacted

Write: TypeAlias = Callable[[Sequence[Statement]], Awaitable[None]]
"""Returns when the broker has all of it; raises BackplaneError if it may not."""


class Seat:
    """A `PresenceSeat`. ``id`` is another one after others have taken it for gone."""

    def __init__(self, seat_id: SeatId, write: Write, listener: PresenceListener, interval: float) -> None:
        self.id = seat_id
        self.there: dict[str, None] = {}
        """Users whose rows may be in the log under this id."""
        self._write_statements = write
        self._listener = listener
        self._interval = interval
        self._rows: Rows = {}  # what ought to be there
        self._dirty: dict[str, None] = {}  # users whose rows may be other ones there
        self._writing = False
        self._changed = trio.Event()

    # -- our rows ------------------------------------------------------------------------------

    def put(self, user: str, info: bytes) -> None:
        """See `PresenceSeat`."""
        self._rows[user] = info
        self._mark(user)

    def remove(self, user: str) -> None:
        """See `PresenceSeat`."""
        if self._rows.pop(user, None) is not None:
            self._mark(user)

    def _mark(self, user: str) -> None:
        self._dirty[user] = None
        self._changed.set()

    def rename(self, seat_id: SeatId) -> None:
        """All rows are written again under this id; who wants those of the old one gone sees to that."""
        self.id = seat_id
        self.there = {}
        self._write_all()

    def _write_all(self) -> None:
        self._dirty.update(dict.fromkeys((*self._rows, *self.there)))
        if self._dirty:
            self._changed.set()

    async def run(self) -> None:
        """Until cancelled, bring the log in line, at most once per interval."""
        while True:
            with trio.move_on_after(_REFRESH_INTERVAL * random.uniform(0.5, 1)) as waiting:
                await self._changed.wait()
            if waiting.cancelled_caught:
                self._write_all()
            self._changed = trio.Event()
            try:
                while self._dirty:
                    await self._write_some()
            except BackplaneUnavailable:
                self._changed.set()
                await trio.sleep(RETRY_INTERVAL)
            except BackplaneError as exc:
                log.warning("kafka: %s; trying again", exc)
                self._changed.set()
                await trio.sleep(10 * RETRY_INTERVAL)
            await trio.sleep(self._interval)

    async def _write_some(self) -> None:
        users = list(islice(self._dirty, ROWS_AT_ONCE))
        for user in users:
            del self._dirty[user]
        written, there = self.id, self.there
        rows = [Row(written, user, self._rows.get(user)) for user in users]
        rows = [row for row in rows if row.info is not None or row.user in there]
        there.update(dict.fromkeys(users))
        self._writing = True
        try:
            await self._write_statements(rows)
        except BaseException:
            self._dirty.update(dict.fromkeys(users))  # it may be there or not
            raise
        finally:
            self._writing = False
        for row in rows:
            if row.info is None:
                there.pop(row.user, None)

    # -- the others' rows ----------------------------------------------------------------------

    def hear(self, event: Changes | SeatGone) -> None:
        """Of a seat of this room, maybe this one."""
        if event.seat == self.id:
            if isinstance(event, Changes) and not self._writing:
                self._compare({user: event.put.get(user) for user in (*event.put, *event.removed)})
        elif isinstance(event, SeatGone):
            self._listener.seat_gone(str(event.seat))
        else:
            self._listener.rows_changed(str(event.seat), event.put, event.removed.keys())

    def resync(self, seats: Mapping[SeatId, Rows]) -> None:
        """All rows of the room, as the log has them; ours are corrected if need be."""
        found = seats.get(self.id, {})
        self._compare({user: found.get(user) for user in (*found, *self._rows)})
        self._listener.resynced({str(seat): rows for seat, rows in seats.items() if seat != self.id})

    def _compare(self, found: Mapping[str, bytes | None]) -> None:
        """Somebody else may have written; so may we, before what we have written last, and then it costs a write."""
        for user, info in found.items():
            if info is not None:
                self.there[user] = None
            if info != self._rows.get(user):
                self._mark(user)
