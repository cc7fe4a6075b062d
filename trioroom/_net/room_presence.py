"""Who is in an active room: its seat in the store, and what its members are told.

One task per room announces changes, drops users whose grace is over, and sleeps for ever while nothing changes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from trioroom._core.info import NOTHING, decode_info
from trioroom._core.presence import Diff, PageOfUsers, Presence, PresenceTable
from trioroom._wire import envelopes
from trioroom._wire.envelopes import Present

if TYPE_CHECKING:
    from trioroom._net.fanout import FanOut
    from trioroom.backplane.base import PresenceSeat, PresenceStore
    from trioroom.member import Member


def presents(rows: Iterable[tuple[str, bytes]]) -> list[Present]:
    """Users as they are on the wire."""
    return [Present(user, None if info == NOTHING else decode_info(info)) for user, info in rows]


class RoomPresence:
    """Owned by its `ActiveRoom`; the `PresenceListener` of its seat. ``vacated`` is called when its last user goes."""

    __slots__ = ("_changed", "_members", "_name", "_seat", "_store", "_table", "_vacated", "settings")

    def __init__(
        self,
        settings: Presence,
        store: PresenceStore,
        name: str,
        members: FanOut,
        vacated: Callable[[], None],
    ) -> None:
        self.settings = settings
        self._store = store
        self._name = name
        self._members = members
        self._vacated = vacated
        self._table = PresenceTable(settings)
        self._seat: PresenceSeat | None = None  # while it is open
        self._changed = trio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Have a seat in the store; leaving takes its rows away.

        Raises:
            BackplaneUnavailable: the broker cannot be reached.
        """
        async with self._store.open(self._name, self, self.settings.interval) as self._seat:
            try:
                yield
            finally:
                self._seat = None  # members that are still in leave a room that has failed

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with trio.move_on_at(self._table.wakes_at()):
                await self._changed.wait()
            self._changed = trio.Event()
            now = trio.current_time()
            self._give_up(now)
            if (diff := self._table.announce(now)) is not None:
                await self._members.tell(self._push(diff))

    def _give_up(self, now: float) -> None:
        gone = self._table.expire(now)
        for user in gone:
            assert self._seat is not None  # it outlasts `run`
            self._seat.remove(user)
        if gone and self._table.is_vacant:
            self._vacated()

    def _push(self, diff: Diff) -> envelopes.Presence:
        if self.settings.count_only or not diff.fits(self.settings.max_listed):
            return envelopes.Presence(self._name, diff.version, diff.count)
        return envelopes.Presence(self._name, diff.version, diff.count, presents(diff.joined.items()), diff.left)

    # -- members -------------------------------------------------------------------------------

    def join(self, member: Member) -> None:
        """``member`` is in the room, as the user that it says it is now."""
        member._listed = user = member.user
        if self._table.join(user, member._info) and self._seat is not None:
            self._seat.put(user, member._info)
        self._changed.set()

    def leave(self, member: Member) -> None:
        """It is no more, if it has been."""
        user, member._listed = member._listed, None
        if user is not None:
            self._table.leave(user, trio.current_time())
            self._changed.set()

    @property
    def lingers(self) -> bool:
        """Whether a user of this node is shown to others, with a connection or in its grace."""
        return not self._table.is_vacant

    def page(self, limit: int, after: str | None) -> PageOfUsers:
        """See `PresenceTable.page`."""
        return self._table.page(limit, after)

    # -- other seats ---------------------------------------------------------------------------

    def rows_changed(self, seat: str, put: Mapping[str, bytes], removed: Collection[str]) -> None:
        """See `PresenceListener`."""
        self._table.rows_changed(seat, put, removed)
        self._changed.set()

    def seat_gone(self, seat: str) -> None:
        """See `PresenceListener`."""
        self._table.seat_gone(seat)
        self._changed.set()

    def resynced(self, seats: Mapping[str, Mapping[str, bytes]]) -> None:
        """See `PresenceListener`."""
        self._table.resynced(seats, trio.current_time())
        self._changed.set()
