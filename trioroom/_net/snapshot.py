"""How a server comes by its `Snapshot`: seldom enough to leave the event loop to the peers."""

from __future__ import annotations

import math
import os
import secrets
import socket
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import trio

from trioroom._core.snapshot import Snapshot
from trioroom._core.statistics import deliveries_of
from trioroom._net.census import Census

if TYPE_CHECKING:
    from trioroom._core.admission import Admission
    from trioroom._net.hub import Hub

_MIN_AGE = 0.9  # seconds for which a snapshot serves all who ask: less than they wait between two looks
_MAX_SHARE = 1 / 20  # of the event loop's time that goes into walks, while anybody watches


class Snapshots:
    """Those of one server."""

    def __init__(self, hub: Hub, admission: Admission) -> None:
        self._hub = hub
        self._admission = admission
        self._node = secrets.token_hex(8)
        self._label = f"{socket.gethostname()}:{os.getpid()}"
        self._opened = trio.current_time()
        self._lock = trio.Lock()
        self._latest: Snapshot | None = None
        self._next = -math.inf  # when there is to be another one

    async def take(self) -> Snapshot:
        """The server as it is, or was a moment ago; if it has very many rooms that moment is longer.

        Calls may overlap: those who ask at the same time get the same one.
        """
        async with self._lock:
            if self._latest is None or trio.current_time() >= self._next:
                census = Census(self._hub)
                await census.run()
                self._latest = self._put_together(census)
                self._next = trio.current_time() + max(_MIN_AGE, census.cost / _MAX_SHARE)
            return self._latest

    async def gather(self) -> list[Snapshot]:
        """Of all nodes that there are: this one."""
        return [await self.take()]

    def _put_together(self, census: Census) -> Snapshot:
        hub, budget, bound = self._hub, self._hub.limits.budget, self._admission.max_connections
        return Snapshot(
            node=self._node,
            label=self._label,
            version=_version(),
            time=time.time(),
            uptime=trio.current_time() - self._opened,
            draining=hub.draining,
            backplane_ready=hub.backplane.ready,
            connections=len(hub.connections),
            max_connections=None if bound == math.inf else int(bound),
            refused_connections=self._admission.refused.total(),
            rooms=len(hub.rooms),
            members=census.members,
            messages_received=None,
            deliveries={policy.value: deliveries_of(tally) for policy, tally in census.tallies.items()},
            queued_bytes=budget.used,
            max_queued_bytes=None if budget.max_bytes == math.inf else budget.max_bytes,
            loop_lag=None,
            cpu_seconds=time.process_time(),
            resident_bytes=None,
            open_files=None,
            max_open_files=None,
            busy_rooms=census.busy_rooms(),
            slow_connections=census.slow_connections(),
        )


@cache  # it reads a file
def _version() -> str:
    try:
        return version("trioroom")
    except PackageNotFoundError:  # it runs from a directory of sources
        return "unknown"
