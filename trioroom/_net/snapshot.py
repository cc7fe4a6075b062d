"""How a server comes by its `Snapshot`: seldom enough to leave the event loop to the peers."""

from __future__ import annotations

import math
import os
import socket
import time
from typing import TYPE_CHECKING

import trio

from trioroom._core.snapshot import Snapshot
from trioroom._core.statistics import deliveries_of
from trioroom._net.census import Census
from trioroom._net.overview import package_version
from trioroom._net.vitals import read_process_figures

if TYPE_CHECKING:
    from trioroom._net.overview import Overview
    from trioroom._net.vitals import ProcessFigures

_MIN_AGE = 0.9  # seconds for which a snapshot serves all who ask: less than they wait between two looks
_MAX_SHARE = 1 / 20  # of the event loop's time that goes into walks, while anybody watches


class Snapshots:
    """Those of one server, whose id is ``node``."""

    def __init__(self, overview: Overview, node: str) -> None:
        self._overview = overview
        self._node = node
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
                census = Census(self._overview.hub)
                await census.run()
                self._latest = self._put_together(census, await read_process_figures())
                self._next = trio.current_time() + max(_MIN_AGE, census.cost / _MAX_SHARE)
            return self._latest

    def _put_together(self, census: Census, process: ProcessFigures) -> Snapshot:
        hub, admission = self._overview.hub, self._overview.admission
        budget, meters = hub.limits.budget, hub.limits.meters
        return Snapshot(
            node=self._node,
            label=self._label,
            version=package_version(),
            time=time.time(),
            uptime=trio.current_time() - self._opened,
            draining=hub.draining,
            backplane_ready=hub.backplane.ready,
            connections=len(hub.connections),
            max_connections=_bound(admission.max_connections),
            refused_connections=admission.refused.total(),
            rooms=len(hub.rooms),
            members=meters.members,
            messages_received=meters.messages_received,
            deliveries={policy.value: deliveries_of(tally) for policy, tally in census.tallies.items()},
            queued_bytes=budget.used,
            max_queued_bytes=_bound(budget.max_bytes),
            loop_lag=self._overview.vitals.recent_loop_lag,
            cpu_seconds=process.cpu_seconds,
            resident_bytes=process.resident_bytes,
            open_files=process.open_files,
            max_open_files=_bound(process.max_open_files),
            busy_rooms=census.busy_rooms(),
            slow_connections=census.slow_connections(),
        )


def _bound(value: float) -> int | None:
    return None if value == math.inf else int(value)
