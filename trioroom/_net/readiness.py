"""Who may read: one edge-triggered queue of the kernel for all connections, or Trio's own waiting.

Trio's ``wait_readable`` costs a system call or two for each wait. Here each socket is added once,
edge-triggered, to an epoll (Linux) or a kqueue (macOS, BSD); one task watches the queue's own
descriptor and wakes the parked readers. Which rules make edges safe: docs/decisions/0001.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Protocol, cast

import trio

# Events per poll. Bounds the time between two checkpoints of the loop, and how many readers are in the middle of a
# message at once: 1,024 that published had more objects under way than the collector lets be young, so that it ran
# several times a second, 30 ms each, and found nothing.
_BATCH = 256


class Wakeable(Protocol):
    """What a readiness source needs of a transport."""

    socket: socket.socket
    ready: bool
    hung_up: bool
    reader: trio.lowlevel.Task | None

    def stop_waiting(self, raise_cancel: object, /) -> trio.lowlevel.Abort:
        """Whoever is parked on it was cancelled."""
        ...


class Readiness(Protocol):
    """One per server. ``run`` is a task of the server's nursery."""

    def register(self, transport: Wakeable) -> None:
        """Watch its socket, until `unregister`."""
        ...

    def unregister(self, transport: Wakeable) -> None:
        """Watch it no more. Who still waits for it is woken, to find its socket closed."""
        ...

    def wait_readable(self, transport: Wakeable) -> Awaitable[object]:
        """Park the calling task until its socket is readable."""
        ...

    async def run(self) -> None:
        """Wake readers until cancelled."""
        ...


class _KernelQueue(Protocol):
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class _EdgeReadiness:
    """What epoll and kqueue share. ``ready`` stays set until a short read has shown that the socket is empty."""

    def __init__(self, queue: _KernelQueue, poll: Callable[[], Iterable[tuple[int, int]]], hang_up: int) -> None:
        self._queue = queue
        self._poll = poll  # descriptor and flags of the sockets that have a new edge; never waits
        self._hang_up = hang_up  # flags that tell of the end, which may come along with the last bytes
        self._transports: dict[int, Wakeable] = {}

    def unregister(self, transport: Wakeable) -> None:
        """Watch it no more. Who still waits for it is woken, to find its socket closed."""
        # Closing the socket, which follows, takes it out of the queue: no system call for that.
        self._transports.pop(transport.socket.fileno(), None)
        if transport.reader is not None:
            transport.ready = True
            task, transport.reader = transport.reader, None
            trio.lowlevel.reschedule(task)

    def wait_readable(self, transport: Wakeable) -> Awaitable[object]:
        """Park the calling task until `run` finds its socket readable; only when ``ready`` is not set."""
        # Not async itself: that would be one coroutine more for each of a million parked readers.
        transport.reader = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(transport.stop_waiting)  # noqa: ASYNC105  # the caller awaits it

    async def run(self) -> None:
        """Wake readers as their sockets become readable, until cancelled."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._queue.fileno())
                while events := self._poll():
                    self._wake(events)
                    # Not back to Trio's waiting at once: it arms its own epoll anew each time, and
                    # those that were woken just now have mostly made their peers answer meanwhile.
                    await trio.lowlevel.checkpoint()
        finally:
            self._queue.close()

    def _wake(self, events: Iterable[tuple[int, int]]) -> None:
        # Not in `run`, whose variables would keep the last one, closed, until the next has something to read.
        hang_up = self._hang_up
        for fd, flags in events:
            transport = self._transports.get(fd)
            if transport is None:
                continue  # closed between the poll and now
            transport.ready = True
            if flags & hang_up:
                transport.hung_up = True
            if transport.reader is not None:
                task, transport.reader = transport.reader, None
                trio.lowlevel.reschedule(task)


class EpollReadiness(_EdgeReadiness):
    """Linux."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        hang_up = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
        super().__init__(self._epoll, partial(self._epoll.poll, 0, _BATCH), hang_up)

    def register(self, transport: Wakeable) -> None:
        fd = transport.socket.fileno()
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        self._transports[fd] = transport


class Kevent(Protocol):
    """As far as it is needed here."""

    ident: int
    filter: int
    flags: int


class Kqueue(_KernelQueue, Protocol):
    """As far as it is needed here."""

    def control(self, changes: Iterable[Kevent] | None, max_events: int, timeout: float, /) -> Iterable[Kevent]:
        """See `select.kqueue`."""
        ...


class KqueueModule(Protocol):
    """What `select` has on macOS and BSD only; by this the class below can be checked and tested elsewhere."""

    KQ_FILTER_READ: int
    KQ_EV_ADD: int
    KQ_EV_CLEAR: int
    KQ_EV_EOF: int

    def kqueue(self) -> Kqueue:
        """See `select`."""
        ...

    def kevent(self, ident: int, filter: int, flags: int, /) -> Kevent:
        """See `select`."""
        ...


class KqueueReadiness(_EdgeReadiness):
    """macOS and BSD."""

    def __init__(self, module: KqueueModule) -> None:
        self._module = module
        self._kqueue = module.kqueue()
        super().__init__(self._kqueue, self._take_edges, module.KQ_EV_EOF)

    def register(self, transport: Wakeable) -> None:
        module, fd = self._module, transport.socket.fileno()
        edges = module.kevent(fd, module.KQ_FILTER_READ, module.KQ_EV_ADD | module.KQ_EV_CLEAR)
        self._kqueue.control([edges], 0, 0)
        self._transports[fd] = transport

    def _take_edges(self) -> list[tuple[int, int]]:
        return [(event.ident, event.flags) for event in self._kqueue.control(None, _BATCH, 0)]


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
            transport.ready = True
        finally:
            transport.reader = None

    async def run(self) -> None:
        """There is nothing to watch here."""
        await trio.sleep_forever()


def open_readiness() -> Readiness:
    """The best source this platform has."""
    if hasattr(select, "epoll"):
        return EpollReadiness()
    if hasattr(select, "kqueue"):
        return KqueueReadiness(cast("KqueueModule", select))
    return PollReadiness()
