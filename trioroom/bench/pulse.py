"""A generator's line to the parent while a step goes on."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection

import attrs

from trioroom.bench.shared import Shared
from trioroom.bench.tally import Counts, Tick

INTERVAL = 0.25
"""Seconds between two ticks, which are the resolution of what is plotted."""


class Stopped(Exception):
    """The parent wants no more, or is gone."""


class Stalled(Exception):
    """Nothing has happened for too long; says what was waited for."""


@attrs.define
class Pulse:
    """Owned by a generator."""

    link: Connection
    process: int
    counts: Counts
    shared: Shared
    patience: float
    _next: float = 0.0
    _moved: float = 0.0
    _seen: object = None

    def start(self) -> None:
        """A step begins."""
        self._moved = time.monotonic()
        self._next = self._moved + INTERVAL

    def tell(self) -> None:
        """What has been counted so far."""
        self.link.send(Tick(self.process, self.counts))

    def beat(self, waiting_for: str | None) -> None:
        """Call it every now and then.

        Args:
            waiting_for: what should be happening; None when it may be that nothing is.
        Raises:
            Stopped: give up.
            Stalled: nothing has changed for as long as the options allow; the publisher waits for other processes, so
                that what these have done counts too.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + INTERVAL
        self.tell()
        if self.link.poll():
            raise Stopped
        if (seen := (self.counts.progress, sum(self.shared.completed))) != self._seen:
            self._seen = seen
            self._moved = now
        elif waiting_for is not None and now - self._moved > self.patience:
            raise Stalled(f"nothing has happened for {self.patience:g} s while waiting for {waiting_for}")
