"""What signals ask a server for, or the parent of workers: SIGINT and SIGTERM to stop, SIGHUP to begin anew."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import FrameType

import trio

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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

    def take(self, number: int) -> None:
        """A signal has come."""
        if number == signal.SIGHUP:
            self.hang_up()
        else:
            self.ask()

    def ask(self) -> None:
        """As SIGINT and SIGTERM do."""
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
    """Heed signals while the context is open; its body is in ``all``, and ends silently when that is cancelled.

    Those that come later do nothing: the process is about to end, with an exit code that tells how it went.
    """
    stop = Stop(patient=patient)
    token = trio.lowlevel.current_trio_token()

    def heed(number: int, frame: FrameType | None) -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(stop.take, number)

    for number in _SIGNALS:
        signal.signal(number, heed)
    with stop.all:
        yield stop


def ignore_signals() -> None:
    """From now on, at the very end: Python takes handlers away before it is done."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
