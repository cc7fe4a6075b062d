"""Who may read: one edge-triggered epoll for all connections, or Trio's own waiting elsewhere.

Trio's ``wait_readable`` costs an epoll_ctl call for each wait. Here each socket is added once,
edge-triggered; one task watches the epoll's own descriptor and wakes the parked readers.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Awaitable
from typing import Protocol

import trio

_BATCH = 1024  # events per poll: bounds the time between two checkpoints of the loop


class Wakeable(Protocol):
    """What a readiness source needs of a transport."""

    socket: socket.socket
    ready: bool
    hung_up: bool
    reader: trio.lowlevel.Task | None

    def stop_waiting(self, raise_cancel: object, /) -> trio.lowlevel.Abort: ...


class Readiness(Protocol):
    """One per server. ``run`` is a task of the server's nursery."""

    def register(self, transport: Wakeable) -> None: ...
    def unregister(self, transport: Wakeable) -> None: ...
    def wait_readable(self, transport: Wakeable) -> Awaitable[object]: ...
    async def run(self) -> None: ...


class EpollReadiness:
    """Linux. ``ready`` stays set until a short read has shown that the socket is empty."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._transports: dict[int, Wakeable] = {}

    def register(self, transport: Wakeable) -> None:
        fd = transport.socket.fileno()
        self._transports[fd] = transport
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)

    def unregister(self, transport: Wakeable) -> None:
        # Closing the socket, which follows, takes it out of the epoll: no system call for that.
        self._transports.pop(transport.socket.fileno(), None)

    def wait_readable(self, transport: Wakeable) -> Awaitable[object]:
        """Park the calling task until `run` finds its socket readable; only when ``ready`` is not set."""
        # Not async itself: that would be one coroutine more for each of a million parked readers.
        transport.reader = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(transport.stop_waiting)  # noqa: ASYNC105  # the caller awaits it

    async def run(self) -> None:
        """Wake readers as their sockets become readable, until cancelled."""
        hang_up = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                for fd, mask in self._epoll.poll(0, _BATCH):
                    transport = self._transports.get(fd)
                    if transport is None:
                        continue  # closed between the poll and now
                    transport.ready = True
                    if mask & hang_up:
                        transport.hung_up = True
                    if transport.reader is not None:
                        task, transport.reader = transport.reader, None
                        trio.lowlevel.reschedule(task)
        finally:
            self._epoll.close()


class PollReadiness:
    """Any platform: each wait goes through Trio."""

    def register(self, transport: Wakeable) -> None:
        """Nothing to do: Trio is asked at each wait."""

    def unregister(self, transport: Wakeable) -> None:
        """Wake whoever still waits for this socket with `trio.ClosedResourceError`."""
        trio.lowlevel.notify_closing(transport.socket)

    async def wait_readable(self, transport: Wakeable) -> None:
        transport.reader = trio.lowlevel.current_task()
        try:
            await trio.lowlevel.wait_readable(transport.socket)
        finally:
            transport.reader = None

    async def run(self) -> None:
        """There is nothing to watch here."""
        await trio.sleep_forever()


def open_readiness() -> Readiness:
    """The best source this platform has."""
    return EpollReadiness() if hasattr(select, "epoll") else PollReadiness()
