"""The socket between a worker and the parent that wants it: the worker's standard input.

The worker says on it, once, that it serves. The parent says nothing: its end of it means stop at once. The kernel
closes it whichever way the parent goes, so no worker outlives it, and the parent does when it is told to hurry.
Standard output and error stay the worker's own, for what the application prints.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import click
import trio

_SERVING = b"serving\n"
_STDIN = 0


@attrs.frozen
class Lifeline:
    """One end; which one, its methods say. Who opened it closes it."""

    stream: trio.SocketStream

    async def say_serving(self) -> None:
        """The worker's: it serves now."""
        try:
            await self.stream.send_all(_SERVING)
        except trio.BrokenResourceError:
            pass  # the parent is gone, as `run_until_lost` will tell

    async def run_until_lost(self, lost: Callable[[], None]) -> None:
        """The worker's: wait for the end of the parent, call ``lost``, return."""
        await self._receive()
        lost()

    async def wait_serving(self) -> bool:
        """The parent's: whether the worker serves; False when it has ended without."""
        return await self._receive() == _SERVING

    async def _receive(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(len(_SERVING)))
        except trio.BrokenResourceError:
            return b""


def open_lifeline() -> tuple[Lifeline, socket.socket]:
    """The parent's end, and the socket that is to be the standard input of one worker."""
    ours, theirs = socket.socketpair()
    return Lifeline(trio.SocketStream(trio.socket.from_stdlib_socket(ours))), theirs


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
    async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
        yield Lifeline(stream)
