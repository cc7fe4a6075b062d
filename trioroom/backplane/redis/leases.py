"""Which nodes live: each renews a lease in Redis, and all its rows go with it when it does not."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Awaitable, Callable

import trio
from redis.exceptions import ResponseError

from trioroom.backplane.redis.presence_scripts import RENEW, RETRY_INTERVAL
from trioroom.backplane.redis.topology import Topology
from trioroom.errors import BackplaneError, BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
_RENEWALS = 3  # in the time of a lease: two may fail
_GRACE = 0.1  # seconds after which we look at a lease that should have ended


class Leases:
    """This node's lease, and what it knows of the others'. It is kept only while there are seats."""

    def __init__(self, topology: Topology, prefix: str, lease: float) -> None:
        self.node = secrets.token_hex(8)
        """Our id; another one after each lease that has ended, for others have removed the rows of the old one."""
        self.live: dict[str, float] = {}
        """When the leases of the others, and ours, end if they are not renewed; as of the last look."""
        self._topology = topology
        self._key = f"{prefix}:{{nodes}}".encode()
        self._lease = lease
        self._held = False
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
            if not given_up and await self._renew():
                return
            what = "is given up" if given_up else "has ended"
            log.warning("redis: the lease of node %s %s", self.node, what, extra={"node": self.node})
            self.node, self._held = secrets.token_hex(8), False
            await self._renew()

    async def _renew(self) -> bool:
        """Whether there is still one to renew, or none was held."""
        milliseconds = round(self._lease * 1000)
        began = trio.current_time()
        try:
            nodes = await RENEW.run(
                self._topology, [self._key], lambda _: [self.node, milliseconds, 1 if self._held else 0]
            )
        except ResponseError as exc:
            raise BackplaneError(f"the broker refuses the lease of a node: {exc}") from exc
        if nodes is None:
            return False
        self._held = True
        names = [name.decode(errors="replace") for name in nodes[::2]]
        self.live = {name: began + left / 1000 for name, left in zip(names, nodes[1::2], strict=True)}
        return True

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
                log.warning("redis: %s", exc)

    async def _wait(self, needed: bool) -> None:
        due = math.inf
        if needed:
            now = trio.current_time()
            ends = [ends + _GRACE for name, ends in self.live.items() if name != self.node]
            due = max(now + _GRACE, min(now + self._lease / _RENEWALS, *ends, math.inf))
        with trio.move_on_at(due):
            await self._wake.wait()
        self._wake = trio.Event()
