"""What time it is at the server: ages are by its clock, which stamps what it stores."""

from __future__ import annotations

import math

import trio


class ServerClock:
    """The server says what time it is now and then; in between we count."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self.observed = -math.inf
        """When, by Trio's clock."""

    def observe(self, now: float, asked: float) -> None:
        """The server has answered with its time a request that was made when it was ``asked``."""
        self.observed = trio.current_time()
        self._ahead = now - (asked + self.observed) / 2

    def now(self, latest: float) -> float:
        """At least ``latest``, which has been."""
        now = trio.current_time() + self._ahead
        if now < latest:
            self._ahead += latest - now
        return max(now, latest)
