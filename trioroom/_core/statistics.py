"""What a server, a room and a member say of themselves: records of one moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from trioroom._core.overflow import Overflow, Tally, sum_of


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
    dropped_for_memory: int = 0
    """Of those dropped, because the server's queues had taken ``max_queued_bytes``."""
    dropped_for_silence: int = 0
    """And because the member had taken nothing for ``write_timeout``. The rest is what the policy gave up."""


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
    """Connections that were turned away, by the limits of their number or rate, or as no proxy that is trusted."""
    rooms: int
    """Rooms that are active."""
    queued_bytes: int
    """Memory of all outboxes and of what waits for the rooms' fan-out; bounded by ``max_queued_bytes``."""
    dropped_queues: int
    """Outboxes that had to go because that bound was reached."""
    deliveries: Mapping[Overflow, Deliveries]
    """By the policy of the rooms, those that are closed included."""
    members: int
    """Members of all rooms, joining ones included."""
    outboxes: int
    """Connections for which something waits, and members that still join."""
    opened_connections: int
    """Connections that were accepted."""
    closed_connections: Mapping[str, int]
    """Connections that are over, by each `CloseCode`; ``other`` is all that are none of these."""
    messages_received: int
    """Messages of peers; requests, in v1."""
    received_bytes: int
    """Of connections, after their handshakes and without TLS."""
    sent_bytes: int
    """To connections, likewise, as handed to the kernel or to TLS."""
    publications: int
    """Messages published on this server that the backplane has taken."""
    failed_publications: int
    """And those that it has not."""
    backplane_ready: bool
    """Whether publications come through now."""
    draining: bool
    """Whether the server is about to end."""
    longest_loop_lag: float
    """Seconds that the event loop has come late at most, in the last minute or two."""


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
        counting = [*self._closing, *active]
        sums = {}
        for policy, closed in self._closed.items():
            # A list for each policy, as hashing an enum's member takes longer than all the rest, and rooms are many.
            sums[policy] = sum_of([closed, *[tally for its, tally in counting if its is policy]])
        return sums

    def deliveries(self, active: Iterable[tuple[Overflow, Tally]]) -> dict[Overflow, Deliveries]:
        """As `tallies`, in the words for the public."""
        return {policy: deliveries_of(tally) for policy, tally in self.tallies(active).items()}


def deliveries_of(tally: Tally) -> Deliveries:
    """``tally`` as it is now."""
    return Deliveries(
        tally.offered,
        tally.sent,
        tally.queued,
        tally.dropped,
        tally.unsent,
        tally.slow_consumers,
        tally.dropped_for_memory,
        tally.dropped_for_silence,
    )
