"""The socket between a worker and the parent that wants it: the worker's standard input.

The worker says on it, once, that it serves, and how long it may take to end. The parent says nothing: its end of it
means stop at once. The kernel closes it whichever way the parent goes, so no worker outlives it, and the parent does
when it is told to hurry.
Standard output and error stay the worker's own, for what the application prints.

While a process of ours imports the application, which may hang, nobody looks at that socket: then it is the kernel that
tells, by SIGIO. A thread that waits would keep the fork server from forking.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import click
import trio

_SERVING = b"serving "
_MAX_SAID = 64  # bytes
_STDIN = 0


@attrs.frozen
class Lifeline:
    """One end; which one, its methods say. Who opened it closes it."""

    stream: trio.SocketStream

    async def say_serving(self, patience: float) -> None:
        """The worker's: it serves now, and may take so many seconds to end once it is told to."""
        try:
            await self.stream.send_all(b"%b%a\n" % (_SERVING, patience))
        except trio.BrokenResourceError:
            pass  # the parent is gone, as `run_until_lost` will tell

    async def run_until_lost(self, lost: Callable[[], None]) -> None:
        """The worker's: wait for the end of the parent, call ``lost``, return."""
        await self._receive()
        lost()

    async def wait_serving(self) -> float | None:
        """The parent's: the patience it needs with the worker, which serves; None when that has ended without."""
        said = await self._receive()
        return float(said.removeprefix(_SERVING)) if said.startswith(_SERVING) else None

    async def _receive(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(_MAX_SAID))
        except trio.BrokenResourceError:
            return b""


def open_lifeline() -> tuple[Lifeline, socket.socket]:
    """The parent's end, and the socket that is to be the standard input of one worker."""
    ours, theirs = socket.socketpair()
    return Lifeline(trio.SocketStream(trio.socket.from_stdlib_socket(ours))), theirs


def end_with_parent() -> None:
    """End this process when the other end of its standard input is closed, until `outlive_parent`."""
    if stat.S_ISSOCK(os.fstat(_STDIN).st_mode):  # else we are none of those that have such a parent
        signal.signal(signal.SIGIO, _end_if_alone)
        fcntl.fcntl(_STDIN, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(_STDIN, fcntl.F_SETFL, fcntl.fcntl(_STDIN, fcntl.F_GETFL) | os.O_ASYNC)
        _end_if_alone()  # it may have been closed before


def outlive_parent() -> None:
    """From now on somebody looks at standard input."""
    fcntl.fcntl(_STDIN, fcntl.F_SETFL, fcntl.fcntl(_STDIN, fcntl.F_GETFL) & ~os.O_ASYNC)
    if signal.getsignal(signal.SIGIO) is _end_if_alone:
        signal.signal(signal.SIGIO, signal.SIG_DFL)


def _end_if_alone(*_: object) -> None:
    poll = select.poll()
    poll.register(_STDIN, 0)  # of a hang-up it tells in any case; SIGIO comes for what is said too
    if poll.poll(0):
        os._exit(1)  # no exception, which who imports might catch


@asynccontextmanager
async def take_lifeline() -> AsyncIterator[Lifeline]:
    """The worker's end, while the context is open.

    Raises:
        click.UsageError: standard input is no socket.
    """
    try:
        sock = socket.socket(fileno=os.dup(_STDIN))
    except OSError as exc:
        raise click.UsageError("--worker is what trioroom gives to processes it starts; see --workers") from exc
    outlive_parent()
    async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
        yield Lifeline(stream)
