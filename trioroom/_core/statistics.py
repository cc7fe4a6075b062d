"""What a server, a room and a member say of themselves: records of one moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from trioroom._core.overflow import Overflow, Tally


@attrs.frozen
class Lag:
    """How far a connection is behind."""

    messages: int
    """Messages that wait for it in this process."""
    queued_bytes: int
    """Their bytes, as they go over the wire."""
    age: float
    """Seconds that the oldest of them has waited; 0 when there are none."""


NO_LAG = Lag(0, 0, 0.0)


@attrs.frozen
class Deliveries:
    """Where messages for members went, since the beginning: ``offered == sent + queued + dropped + unsent``."""

    offered: int
    """Messages times the members they were for."""
    sent: int
    """Handed to the kernel, or to TLS."""
    queued: int
    """Waiting in outboxes now."""
    dropped: int
    """Given up because a member did not keep up, by its room's policy or for the server's memory."""
    unsent: int
    """Given up because the member's connection ended for another reason."""
    slow_consumers: int
    """Members whose connection was closed with 4108 after messages had waited for them."""


@attrs.frozen
class RoomStatistics:
    """A room on one node."""

    members: int
    """Members, joining ones included."""
    overflow: Overflow
    """The room's policy."""
    waiting: int
    """Publications that wait for the fan-out."""
    deliveries: Deliveries
    """Since the room was opened."""


@attrs.frozen
class ServerStatistics:
    """A server; its counts are those since it was opened."""

    connections: int
    """WebSocket connections that are open."""
    refused_connections: int
    """Connections that were turned away: by the limits of their number or rate, or as no proxy that is trusted."""
    rooms: int
    """Rooms that are active."""
    queued_bytes: int
    """Memory of all outboxes and of what waits for the rooms' fan-out; bounded by ``max_queued_bytes``."""
    dropped_queues: int
    """Outboxes that had to go because that bound was reached."""
    deliveries: Mapping[Overflow, Deliveries]
    """By the policy of the rooms, those that are closed included."""


class Totals:
    """The counts of rooms that come and go, by their policy."""

    def __init__(self) -> None:
        self._closed = {policy: Tally() for policy in Overflow}
        self._closing: list[tuple[Overflow, Tally]] = []  # some of their messages wait in outboxes still

    def close(self, policy: Overflow, tally: Tally) -> None:
        """A room is over; what it has sent may still wait."""
        self._closing.append((policy, tally))
        still: list[tuple[Overflow, Tally]] = []
        for policy, tally in self._closing:
            if tally.queued:
                still.append((policy, tally))
            else:
                self._closed[policy].add(tally)
        self._closing = still

    def tallies(self, active: Iterable[tuple[Overflow, Tally]]) -> dict[Overflow, Tally]:
        """The sums, with those of the rooms that are ``active``."""
        sums = {policy: attrs.evolve(tally) for policy, tally in self._closed.items()}
        for policy, tally in [*self._closing, *active]:
            sums[policy].add(tally)
        return sums

    def deliveries(self, active: Iterable[tuple[Overflow, Tally]]) -> dict[Overflow, Deliveries]:
        """As `tallies`, in the words for the public."""
        return {policy: deliveries_of(tally) for policy, tally in self.tallies(active).items()}


def deliveries_of(tally: Tally) -> Deliveries:
    """``tally`` as it is now."""
    return Deliveries(tally.offered, tally.sent, tally.queued, tally.dropped, tally.unsent, tally.slow_consumers)
