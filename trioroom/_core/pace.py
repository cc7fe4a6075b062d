"""The pace of a drain: when each peer is closed, and when it is to come back."""

from __future__ import annotations

import math

import attrs

TICK = 0.05
"""Seconds between two slices of a drain, and the width of a slot: short beside what a reconnect takes by itself."""


@attrs.frozen
class Pace:
    """Peers are numbered from 0; times count from the beginning of the drain.

    Slots are evenly spread over ``returning``. A peer is closed when its slot begins, so that it is away only while it
    reconnects, unless that is too late for it to part by the deadline: then all are closed faster, and wait longer.
    """

    peers: int
    closing: float
    """Seconds over which they are closed."""
    returning: float
    """Seconds over which they come back."""

    def due(self, tick: int) -> int:
        """How many have been closed when slice number ``tick`` is done; the first one is number 0."""
        passed = (tick + 1) * TICK
        if passed >= self.closing:
            return self.peers
        return math.ceil(round(self.peers * passed / self.closing, 6))  # else 100.00000000000001 would be 101

    def after(self, number: int, elapsed: float) -> tuple[float, float]:
        """The slot of a peer that is closed now: between how many seconds from now it is to come back."""
        begins = round(max(0.0, number / self.peers * self.returning - elapsed), 3)
        return begins, round(begins + TICK, 3)


def plan_pace(peers: int, *, rate: float, timeout: float, close_timeout: float) -> Pace:
    """The pace for so many peers.

    Args:
        rate: peers a second that are to come back, or more if ``timeout`` would not do.
        timeout: seconds the drain may take, of which the last peer has ``close_timeout`` to answer, or half of it all.
    """
    returning = min(peers / rate, timeout)
    return Pace(peers, min(returning, max(timeout / 2, timeout - close_timeout)), returning)
