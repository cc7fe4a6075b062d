"""Which nodes live: each renews a lease at the broker, and all its rows go with it when it does not."""

from __future__ import annotations

import logging
import math
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from trioroom.errors import BackplaneError, BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
RETRY_INTERVAL: Final = 0.5
"""Seconds between two attempts at something of presence while the broker is away."""
_RENEWALS = 3  # in the time of a lease: two may fail
_GRACE = 0.1  # seconds after which we look at a lease that should have ended


class Leases(ABC):
    """This node's lease, and what it knows of the others'. It is kept only while there are seats."""

    broker: str
    """Its name in the log."""

    def __init__(self, lease: float) -> None:
        self.node = secrets.token_hex(8)
        """Our id; another one after each lease that has ended, for others have removed the rows of the old one."""
        self.live: dict[str, float] = {}
        """When the leases of the others, and ours, end if they are not renewed; as of the last look."""
        self.lease = lease
        """Seconds that ours lasts."""
        self.held = False
        """Whether we have one under this id, as far as we know."""
        self._given_up = ""  # the id that we want to be rid of
        self._looking = trio.Lock()
        self._wake = trio.Event()

    async def hold(self) -> None:
        """Have a lease from now on; others then know the rows that we write for those of a node that lives.

        Raises:
            BackplaneUnavailable: the broker cannot be reached.
            BackplaneError: it refuses.
        """
        if self.live.get(self.node, 0) <= trio.current_time():
            await self.look()

    def look_soon(self) -> None:
        """Something was heard of a node that we do not know."""
        self._wake.set()

    def give_up_id(self) -> None:
        """Go on as another node. Our lease is left to end, so that our seats have time to write their rows again."""
        self._given_up = self.node
        self.look_soon()

    async def look(self) -> None:
        """Renew ours and learn of the others; if ours had ended, or was given up, we are another node now.

        Raises as `hold` does.
        """
        async with self._looking:
            given_up = self._given_up == self.node
            if not given_up and await self.renew():
                return
            what = "is given up" if given_up else "has ended"
            log.warning("%s: the lease of node %s %s", self.broker, self.node, what, extra={"node": self.node})
            self.node, self.held = secrets.token_hex(8), False
            await self.renew()

    @abstractmethod
    async def renew(self) -> bool:
        """Have a lease, or if one is ``held`` have it for longer, and tell ``live`` of it; False if it has ended."""

    async def run(self, about_to_look: Callable[[], bool], looked: Callable[[], Awaitable[None]]) -> None:
        """Until cancelled: when it is time and ``about_to_look`` says that it is needed, look and call ``looked``."""
        needed = False
        while True:
            await self._wait(needed)
            needed = about_to_look()
            if not needed:
                continue
            try:
                await self.look()
                await looked()
            except BackplaneUnavailable:
                await trio.sleep(RETRY_INTERVAL)
                self._wake.set()
            except BackplaneError as exc:
                log.warning("%s: %s", self.broker, exc)

    async def _wait(self, needed: bool) -> None:
        due = math.inf
        if needed:
            now = trio.current_time()
            ends = [ends + _GRACE for name, ends in self.live.items() if name != self.node]
            due = max(now + _GRACE, min(now + self.lease / _RENEWALS, *ends, math.inf))
        with trio.move_on_at(due):
            await self._wake.wait()
        self._wake = trio.Event()
