"""What signals ask a server for, or the parent of workers: SIGINT and SIGTERM to stop, SIGHUP to begin anew."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

_STANDARD_STREAMS = (0, 1, 2)


class Stop:
    """What has been asked for; see `open_stop`."""

    def __init__(self, *, patient: bool = False) -> None:
        self.patient = patient
        """Take further signals for the first one again: a service manager may signal each process of ours, and the
        parent of workers does too."""
        self.serving = False
        """Set by whoever serves: from then on the first signal is a request to drain."""
        self.begun = trio.Event()
        """Drain and end."""
        self.at_once = trio.CancelScope()
        """Around serving, without the backplane: the last ``on_leave`` still needs it. The second signal ends it."""
        self.all = trio.CancelScope()
        """Around everything; ended by a signal while nobody is served yet."""
        self._terminals = [file for file in _STANDARD_STREAMS if os.isatty(file)]
        self._hangup = trio.Event()

    def ask(self) -> None:
        """As a signal does."""
        if not self.serving or (self.begun.is_set() and not self.patient):
            self.insist()
        self.begun.set()

    def insist(self) -> None:
        """As the second signal does."""
        self.at_once.cancel()
        if not self.serving:
            self.all.cancel()

    def hang_up(self) -> None:
        """As SIGHUP does: ask for whatever `wait_hangup` waits to do; if it is our terminal that is gone, to stop."""
        if not self.patient and not all(map(os.isatty, self._terminals)):
            self.ask()
        else:
            self._hangup.set()

    async def wait_hangup(self) -> None:
        """Until SIGHUP comes, or one has that nobody waited for; several of those are one."""
        await self._hangup.wait()
        self._hangup = trio.Event()


@asynccontextmanager
async def open_stop(*, patient: bool = False) -> AsyncIterator[Stop]:
    """Heed signals while the context is open; its body is in ``all``, and ends silently when that is cancelled."""
    stop = Stop(patient=patient)

    async def heed(signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                stop.hang_up()
            else:
                stop.ask()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heed, signals)
            with stop.all:
                yield stop
            nursery.cancel_scope.cancel()
