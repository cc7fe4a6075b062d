"""Who is in the rooms, as nodes see it whose link to each other can be severed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import trio

from trioroom.backplane.base import PresenceListener, PresenceSeat, PresenceStore
from trioroom.errors import BackplaneUnavailable
from trioroom.testing.beside import beside


class _Seat:
    """A `PresenceSeat` to the room, and the listener of the seat that it has at ``store`` while that knows of us."""

    def __init__(self, listener: PresenceListener, lease: float) -> None:
        self._listener = listener
        self._lease = lease
        self._rows: dict[str, bytes] = {}  # as they ought to be there
        self._there: dict[str, bytes] = {}  # as they are
        self._others: dict[str, dict[str, bytes]] = {}  # by seat
        self._inner: PresenceSeat | None = None
        self._is_severed = False
        self._changed = trio.Event()

    # -- for the room -----------------------------------------------------------------------------

    def put(self, user: str, info: bytes) -> None:
        """See `PresenceSeat`."""
        self._rows[user] = info
        self._write((user,))

    def remove(self, user: str) -> None:
        """See `PresenceSeat`."""
        self._rows.pop(user, None)
        self._write((user,))

    def _write(self, users: Iterable[str]) -> None:
        """Their rows, unless that is for later."""
        if self._inner is None or self._is_severed:
            return
        for user in users:
            info = self._rows.get(user)
            if info is None and self._there.pop(user, None) is not None:
                self._inner.remove(user)
            elif info is not None and self._there.get(user) != info:
                self._there[user] = info
                self._inner.put(user, info)

    # -- for the store ----------------------------------------------------------------------------

    def rows_changed(self, seat: str, put: Mapping[str, bytes], removed: Collection[str]) -> None:
        """See `PresenceListener`."""
        rows = self._others.setdefault(seat, {})
        rows.update(put)
        for user in removed:
            rows.pop(user, None)
        if not self._is_severed:
            self._listener.rows_changed(seat, put, removed)

    def seat_gone(self, seat: str) -> None:
        """See `PresenceListener`."""
        self._others.pop(seat, None)
        if not self._is_severed:
            self._listener.seat_gone(seat)

    def resynced(self, seats: Mapping[str, Mapping[str, bytes]]) -> None:
        """See `PresenceListener`."""
        self._others = {seat: dict(rows) for seat, rows in seats.items()}
        if not self._is_severed:
            self._listener.resynced(seats)

    # -- the link ---------------------------------------------------------------------------------

    def sever(self) -> None:
        """Nothing goes either way."""
        self._is_severed = True
        self._tell()

    def mend(self) -> None:
        """Both sides learn what they have missed."""
        self._is_severed = False
        self._tell()
        if self._inner is not None:  # else once there is a seat again
            self._write(self._there.keys() | self._rows.keys())
            self._listener.resynced(self._others)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def hold(
        self,
        store: PresenceStore,
        room: str,
        interval: float,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Have a seat there, but when we have been severed for as long as the lease; until cancelled."""
        while True:
            async with store.open(room, self, interval) as self._inner:
                self._there = {}
                self._write(list(self._rows))
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                await self._wait_lost()
                self._inner = None
            while self._is_severed:
                await self._changed.wait()

    async def _wait_lost(self) -> None:
        while True:
            if not self._is_severed:
                await self._changed.wait()
                continue
            with trio.move_on_after(self._lease) as lease:
                while self._is_severed:
                    await self._changed.wait()
            if lease.cancelled_caught:
                return


class SeveredPresence:
    """A `PresenceStore` over ``inner`` whose link can be severed.

    Meanwhile members come and go here unseen by others, who after ``lease`` seconds take this node for dead.
    """

    def __init__(self, inner: PresenceStore, lease: float) -> None:
        self._inner = inner
        self._lease = lease
        self._seats: set[_Seat] = set()
        self._is_severed = False

    def sever(self) -> None:
        """For all seats."""
        self._is_severed = True
        for seat in self._seats:
            seat.sever()

    def mend(self) -> None:
        """For all seats."""
        self._is_severed = False
        for seat in self._seats:
            seat.mend()

    @asynccontextmanager
    async def open(self, room: str, listener: PresenceListener, interval: float) -> AsyncIterator[PresenceSeat]:
        """See `PresenceStore`."""
        await trio.lowlevel.checkpoint()
        if self._is_severed:
            raise BackplaneUnavailable("partitioned from the broker")
        seat = _Seat(listener, self._lease)
        async with beside(partial(seat.hold, self._inner, room, interval)):
            if self._is_severed:  # meanwhile: there is no seat yet that could be told
                raise BackplaneUnavailable("partitioned from the broker")
            self._seats.add(seat)
            try:
                yield seat
            finally:
                self._seats.discard(seat)
