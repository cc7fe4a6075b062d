"""Rows of seats that are closed: gone at once for all who see them, and taken back from the log one by one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import attrs
import trio

from trioroom.backplane.kafka.presence_records import Gone, Row, SeatId
from trioroom.backplane.kafka.presence_seat import RETRY_INTERVAL, ROWS_AT_ONCE, Seat, Write
from trioroom.errors import BackplaneError, BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
CLOSE_TIMEOUT: Final = 2.0  # seconds that who closes a seat waits for the broker
MAX_OWED: Final = 10_000  # seats; a node with more becomes another one, and others take back what the old one has left


@attrs.define(eq=False)
class _Owed:
    """What the log still has of a seat."""

    seat: SeatId
    users: tuple[str, ...]
    told: bool = False
    """Whether others know that it is gone."""


class Removals:
    """As long as our node lives nobody else would take back what it has written."""

    def __init__(self, write: Write, give_up_id: Callable[[], None]) -> None:
        self._write = write
        self._give_up_id = give_up_id
        self._owed: list[_Owed] = []
        self._added = trio.Event()

    async def close(self, seat: Seat) -> None:
        """Its rows go now for all who see them, if the broker takes no longer than `CLOSE_TIMEOUT`; else by `run`."""
        if not seat.there:
            return
        owed = _Owed(seat.id, tuple(seat.there))
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            try:
                await self._tell(owed)
            except BackplaneError as exc:
                log.debug("kafka: cannot say that a seat is closed: %s", exc)
        self._owed.append(owed)
        self._added.set()
        if len(self._owed) > MAX_OWED:
            log.warning("kafka: more than %d rooms with presence were closed while the broker was away", MAX_OWED)
            self._give_up_id()

    def forget(self) -> None:
        """Our node is another one now."""
        self._owed.clear()

    async def run(self) -> None:
        """Until cancelled, take back what is owed."""
        while True:
            await self._added.wait()
            self._added = trio.Event()
            try:
                await self.settle()
            except BackplaneError as exc:
                if not isinstance(exc, BackplaneUnavailable):  # else the link has said so
                    log.warning("kafka: %s; trying again", exc)
                self._added.set()
                await trio.sleep(RETRY_INTERVAL)

    async def settle(self) -> None:
        """Take back what is owed now.

        Raises:
            BackplaneError: it may not have been.
        """
        while self._owed:
            owed = self._owed[0]
            await self._tell(owed)
            for start in range(0, len(owed.users), ROWS_AT_ONCE):
                users = owed.users[start : start + ROWS_AT_ONCE]
                await self._write([Row(owed.seat, user, None) for user in users])
            await self._write([Gone(owed.seat, is_gone=False)])
            if owed in self._owed:
                self._owed.remove(owed)

    async def _tell(self, owed: _Owed) -> None:
        if not owed.told:
            await self._write([Gone(owed.seat, is_gone=True)])
            owed.told = True
