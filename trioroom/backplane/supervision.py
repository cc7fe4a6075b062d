"""A link to a broker is kept up: one life after the other with a pause between them, and who waits for it is told."""

from __future__ import annotations

import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import trio

from trioroom._core.backoff import Backoff
from trioroom._core.causes import first_of
from trioroom._core.meters import LinkMeters
from trioroom.backplane.pending import PendingQueue
from trioroom.backplane.url import Endpoint
from trioroom.errors import BackplaneError, BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
FIRST_BACKOFF: Final = 0.05
"""Seconds; doubles with each failure up to ``max_backoff`` of the settings."""
_SETTLED: Final = 5.0  # seconds of life after which a loss is a new one and no sign that coming back is useless
link_closed = partial(BackplaneUnavailable, "the link to the broker is closed; publish while it is open")
"""The error of what comes after the end."""


class LinkLost(BackplaneError):
    """The connection is of no use any more: another one is to be made. The text says why. Never leaves this package."""


async def keep_alive(
    live: Callable[[], Awaitable[None]],
    went_down: Callable[[BaseExceptionGroup[BackplaneError]], None],
    max_backoff: float,
) -> None:
    """``live`` again and again, until cancelled.

    Args:
        live: one life; it ends by raising a `BackplaneError`, perhaps in a group.
        went_down: called with the group.
        max_backoff: the most seconds between two lives.
    """
    backoff = Backoff(first=FIRST_BACKOFF, most=max_backoff, settled=_SETTLED)
    while True:
        began = trio.current_time()
        try:
            await live()
        except* BackplaneError as group:
            went_down(group)
        await trio.sleep(backoff.after(trio.current_time() - began, random.random()))


class Changes:
    """Tells those who wait that something has changed."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def tell(self) -> None:
        """Wake all who wait now."""
        self._event.set()
        self._event = trio.Event()

    async def wait(self) -> None:
        """Until the next `tell`."""
        await self._event.wait()


class SupervisedLink(ABC):
    """A link whose requests wait in queues that outlive its connections; who derives from it says what a life is."""

    def __init__(
        self,
        broker: str,
        max_backoff: float,
        queue: PendingQueue[Any],
        meters: LinkMeters,
        on_change: Callable[[], None],
    ) -> None:
        """``broker`` is for the log, ``queue`` is told why it waits; ``on_change``: it came up or went down."""
        self.ready = False
        """Publications come round."""
        self.failure: str | None = None
        """Why it is down; None while it is up, or was never tried."""
        self._broker = broker
        self._max_backoff = max_backoff
        self._queue = queue
        self._meters = meters
        self._tell_change = on_change
        self._endpoint: Endpoint | None = None  # of the server, where that is known
        self._attempts = 0  # that have come to something, good or bad

    @abstractmethod
    async def _live(self) -> None:
        """One life of the link; ends by raising `LinkLost`, perhaps in a group."""

    @abstractmethod
    def _rooms(self) -> int:
        """How many it listens to."""

    async def run(self) -> None:
        """Connect, and again whenever it is lost; only cancelling ends it."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._queue.expire)
                await keep_alive(self._live, self._lost, self._max_backoff)
        finally:  # nothing would expire any more
            self.ready = False
            self._queue.give_up(link_closed)

    def _lost(self, error: BaseExceptionGroup[BackplaneError]) -> None:
        reason = str(first_of(error))
        failure = f"{self._endpoint}: {reason}" if self._endpoint is not None else reason
        # Once for each reason; the very first failure is for who opens the backplane to tell.
        if failure != self.failure and self._attempts:
            log.warning("%s: %s; trying again", self._broker, failure, extra={"endpoint": self._endpoint})
        self._attempts += 1
        self.failure = self._queue.trouble = failure
        self._set_ready(False)
        self._tell_change()

    def _set_ready(self, ready: bool) -> None:
        self._meters.outages += self.ready and not ready
        came_up, self.ready = ready and not self.ready, ready
        if came_up:
            fields = {"endpoint": self._endpoint, "rooms": self._rooms()}
            log.info("%s: %s is up, %d rooms subscribed", self._broker, *fields.values(), extra=fields)
            self.failure = self._queue.trouble = None
            self._attempts += 1
            self._tell_change()

    async def _wait_restored(
        self, received: Callable[[], int], restored: Callable[[], Awaitable[None]], timeout: float
    ) -> None:
        """Until subscriptions are restored; as long as it takes, while something comes.

        Raises:
            LinkLost: for ``timeout`` seconds nothing did.
        """
        before = -1
        while received() != before:
            before = received()
            with trio.move_on_after(timeout):
                return await restored()
        raise LinkLost(f"subscriptions were not confirmed for {timeout:g} s")
