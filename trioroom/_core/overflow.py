"""What a room does for members that do not keep up, and the count of what that cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

import attrs


class Overflow(Enum):
    """What happens when more waits for a member than its room allows."""

    DISCONNECT = "disconnect"
    """The member's connection is closed with 4108. It gets all, or knows that it did not."""
    DROP_OLDEST = "drop_oldest"
    """The oldest messages that wait for it go, for what is new is worth more."""
    DROP_NEWEST = "drop_newest"
    """New messages are not queued for it, for what it waits for comes first."""
    LATEST = "latest"
    """Of the messages with one ``key`` only the newest waits, full or not; without a key as `DROP_OLDEST`."""


class SlowConsumer(Enum):
    """Why a connection is closed with 4108."""

    OVERFLOW = "overflow"
    """More waits for it than its room or the settings allow."""
    MEMORY = "memory"
    """The most of all waits for it, and ``max_queued_bytes`` is used up."""
    WRITE_TIMEOUT = "write_timeout"
    """It has taken nothing for that long."""


@attrs.define
class Tally:
    """Where the messages for a room's members went, on this node. What is in none of the last three was sent."""

    offered: int = 0
    """Messages times members."""
    queued: int = 0
    """Waiting in outboxes now."""
    dropped: int = 0
    """Given up because a member did not keep up, by the room's policy or for the server's memory."""
    unsent: int = 0
    """Given up because the member's connection ended."""
    slow_consumers: int = 0
    """Members whose connection was closed with 4108."""
    dropped_for_memory: int = 0
    """Of those dropped, for the server's memory."""
    dropped_for_silence: int = 0
    """And because the member took nothing for ``write_timeout``."""

    @property
    def sent(self) -> int:
        """Handed to the kernel."""
        return self.offered - self.queued - self.dropped - self.unsent

    def drop(self, messages: int, cause: SlowConsumer) -> None:
        """So many were given up with their connection."""
        self.dropped += messages
        if cause is SlowConsumer.MEMORY:
            self.dropped_for_memory += messages
        elif cause is SlowConsumer.WRITE_TIMEOUT:
            self.dropped_for_silence += messages

    def add(self, other: Tally) -> None:
        """Count what ``other`` has counted too."""
        self.offered += other.offered
        self.queued += other.queued
        self.dropped += other.dropped
        self.unsent += other.unsent
        self.slow_consumers += other.slow_consumers
        self.dropped_for_memory += other.dropped_for_memory
        self.dropped_for_silence += other.dropped_for_silence


def sum_of(tallies: Sequence[Tally]) -> Tally:
    """What all have counted; a third of a microsecond for each."""
    return Tally(
        sum([tally.offered for tally in tallies]),
        sum([tally.queued for tally in tallies]),
        sum([tally.dropped for tally in tallies]),
        sum([tally.unsent for tally in tallies]),
        sum([tally.slow_consumers for tally in tallies]),
        sum([tally.dropped_for_memory for tally in tallies]),
        sum([tally.dropped_for_silence for tally in tallies]),
    )


@attrs.frozen(eq=False)
class Feed:
    """What one kind of peer gets of a room, or of the server itself: the rules for what waits of it in an outbox."""

    policy: Overflow
    tally: Tally
    gap: Callable[[int], bytes]
    """The frame that tells a member how many messages it has lost; empty where peers have no word for it."""
    max_messages: int | None = None
    """How many may wait for one member; None leaves it to the outbox's own bound."""
    max_bytes: int | None = None
    """And in bytes."""


CONTROL = Feed(Overflow.DISCONNECT, Tally(), lambda lost: b"")
"""Answers, pings and all else that is no message of a room: it is sent whole or the connection ends."""
