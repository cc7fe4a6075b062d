"""Which descriptors have something to read: epoll where there is one, else what `selectors` finds.

Of epoll the loop gets descriptor and events as the kernel gives them; `selectors` makes an object of each, which
at 200,000 events a second is a fifth of a core.
"""

from __future__ import annotations

import select
import selectors
import sys
from typing import Protocol


class Poller(Protocol):
    """Watches descriptors."""

    def watch(self, descriptor: int, *, writing: bool = False) -> None:
        """Tell when it can be read, or else written."""
        ...

    def turn_to_reading(self, descriptor: int) -> None:
        """It is watched for writing; no more."""
        ...

    def forget(self, descriptor: int) -> None:
        """Before it is closed."""
        ...

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        """Descriptors that are ready and for what, at most ``most``; waits ``timeout`` seconds for the first."""
        ...

    def close(self) -> None:
        """Watch no more."""
        ...


class SelectorsPoller:
    """For kqueue and the rest."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, descriptor: int, *, writing: bool = False) -> None:
        """See `Poller`."""
        self._selector.register(descriptor, selectors.EVENT_WRITE if writing else selectors.EVENT_READ)

    def turn_to_reading(self, descriptor: int) -> None:
        """See `Poller`."""
        self._selector.modify(descriptor, selectors.EVENT_READ)

    def forget(self, descriptor: int) -> None:
        """See `Poller`."""
        self._selector.unregister(descriptor)

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        """See `Poller`; what is beyond ``most`` is found again at the next call."""
        return [(key.fd, events) for key, events in self._selector.select(timeout)[:most]]

    def close(self) -> None:
        """See `Poller`."""
        self._selector.close()


if sys.platform == "linux":

    class EpollPoller:
        """For Linux."""

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self.poll = self._epoll.poll

        def watch(self, descriptor: int, *, writing: bool = False) -> None:
            """See `Poller`."""
            self._epoll.register(descriptor, select.EPOLLOUT if writing else select.EPOLLIN)

        def turn_to_reading(self, descriptor: int) -> None:
            """See `Poller`."""
            self._epoll.modify(descriptor, select.EPOLLIN)

        def forget(self, descriptor: int) -> None:
            """See `Poller`."""
            self._epoll.unregister(descriptor)

        def close(self) -> None:
            """See `Poller`."""
            self._epoll.close()


def open_poller() -> Poller:
    """The best there is on this system."""
    return EpollPoller() if sys.platform == "linux" else SelectorsPoller()
