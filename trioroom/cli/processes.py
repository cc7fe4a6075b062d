"""The end of a process that we started, whether it is our child or a fork of one."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Protocol

import trio

_KILL_AFTER = 10.0  # seconds a process that shall end at once may take: peers are told, hooks have leave_timeout


class Process(Protocol):
    """What `trio.Process` has and we need. Signals to one that has ended do nothing."""

    @property
    def pid(self) -> int:
        """Its id; that of another one, maybe, when it has ended."""
        ...

    async def wait(self) -> int | None:
        """Its return code, as `subprocess` gives it, once it has ended; None if nobody knows."""
        ...

    def send_signal(self, sig: signal.Signals) -> None:
        """Send it."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


async def end_process(process: Process, hang_up: Callable[[], None]) -> None:
    """See that it is gone, also when cancelled: by the end of our socket to it, or SIGTERM while it still starts.

    Args:
        hang_up: closes that socket.
    """
    with trio.move_on_after(_KILL_AFTER, shield=True):
        process.terminate()
        hang_up()
        await process.wait()
        return
    process.kill()
    with trio.CancelScope(shield=True):  # no deadline: SIGKILL is one
        await process.wait()
