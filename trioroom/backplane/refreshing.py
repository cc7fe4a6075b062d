"""Reading again what is followed by its changes: when one is missing, and from time to time."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable

import trio

from trioroom.backplane.leases import RETRY_INTERVAL
from trioroom.errors import BackplaneError

log = logging.getLogger("trioroom.backplane")
_REFRESH_INTERVAL = 8 * 3600.0  # seconds after which, jittered, the table is read, lest an error in it live for ever


class Refreshing:
    """``read`` calls `begin` first, and may raise `BackplaneError`. ``broker`` is its name in the log."""

    def __init__(self, broker: str, read: Callable[[], Awaitable[None]]) -> None:
        self._broker = broker
        self._read = read
        self._stale = trio.Event()

    def begin(self) -> None:
        """What was expected is being done."""
        self._stale = trio.Event()

    def expect(self) -> None:
        """It has to be read."""
        self._stale.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with trio.move_on_after(_REFRESH_INTERVAL * random.uniform(0.5, 1)):  # rooms may have opened together
                await self._stale.wait()
            try:
                await self._read()
            except BackplaneError as exc:
                log.debug("%s: cannot read who is present: %s", self._broker, exc)
                self._stale.set()
            await trio.sleep(RETRY_INTERVAL)  # a stream of noise is not to become one of reads
