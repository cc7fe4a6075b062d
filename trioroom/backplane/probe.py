"""Publications to ourselves: they have to come round within their time, or the link to the broker is given up.

A connection that is open and silent may have lost its other end, a proxy's state or its subscriptions, and nothing else
would ever tell.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from operator import ne
from typing import Final

import trio

from trioroom._core.meters import LinkMeters
from trioroom.backplane.base import Delivery

_MAX_DIGITS: Final = 15  # of a probe's number; anybody may publish to its channel
_MAX_LAG: Final = 10  # times the timeout that a probe may take while other traffic shows that the link lives


class Probe:
    """Hears what it has sent. One for all connections of a link, one after the other."""

    def __init__(self, interval: float, timeout: float, meters: LinkMeters) -> None:
        """``interval`` and ``timeout`` are ``probe_interval`` and ``probe_timeout`` of the settings."""
        self._interval = interval
        self._timeout = timeout
        self._meters = meters
        self._sent = (
            0  # the number of the last one; not used again on the next connection, where it would prove nothing
        )
        self._returned = 0
        self._news = trio.Event()

    def offer(self, delivery: Delivery) -> None:
        """Called by the listener."""
        if isinstance(delivery, bytes) and delivery.isdigit() and len(delivery) <= _MAX_DIGITS:
            self._returned = int(delivery)
            self._news.set()
            self._news = trio.Event()

    async def keep_probing(
        self,
        send: Callable[[bytes], Awaitable[object]],
        tell: Callable[[bool], None],
        traffic: Callable[[], tuple[int, ...]],
    ) -> float:
        """Until one does not come round; the seconds that were too many. It may take longer while others' come.

        Args:
            send: publishes to where this hears it; cancelled when that takes too long.
            tell: called with whether publications come round now.
            traffic: counts of what comes, by kind; while all of them grow the way is open and has a queue.
        """
        tick = min(self._interval, self._timeout / 2)  # so that one pause of ours is not all of it
        silent = 0.0  # seconds, counted in ticks: when it was we who stopped, that is one
        self._returned = self._sent
        while True:
            before, began = traffic(), trio.current_time()
            self._sent += 1
            wait = min(tick, self._timeout - silent)
            with trio.move_on_after(wait) as waiting:
                await send(b"%d" % self._sent)
                await self._wait(self._sent)
            if not waiting.cancelled_caught:
                silent = 0.0
                self._meters.round_trips.observe(trio.current_time() - began)
                tell(True)
                await trio.sleep(self._interval)
                continue
            late = tick * (self._sent - self._returned)  # of those on their way, the oldest: lag itself may be steady
            self._meters.round_trips.observe(late)  # or more: it is still on its way
            alive = all(map(ne, traffic(), before))
            silent = 0.0 if alive else silent + wait
            if not alive:
                tell(False)
            if silent >= self._timeout or late >= _MAX_LAG * self._timeout:
                return late

    async def _wait(self, number: int) -> None:
        while self._returned < number:
            await self._news.wait()
