"""What one generator process counts, and what it tells of it while it measures and when it is done."""

from __future__ import annotations

from collections import Counter

import attrs

from trioroom.bench.histogram import Histogram


@attrs.define
class Counts:
    """Numbers that add up over processes."""

    opened: int = 0
    """Connections that came to be members, each time they did."""
    failed: int = 0
    """Connections that did not."""
    closed: int = 0
    """Members whose connection ended although nobody here wanted it to."""
    left: int = 0
    """Members that left, or were cut off, as the scenario has it."""
    sent: int = 0
    """Messages that members sent."""
    received: int = 0
    """Messages that members got while load was on: deliveries, answers."""
    received_bytes: int = 0
    """All bytes that came, from the first handshake on."""
    pings: int = 0
    """Heartbeats answered."""
    recovered: int = 0
    """Members that came back and got all they had missed."""
    not_recovered: int = 0
    """Members that came back and were told that it is not held any more."""

    @property
    def progress(self) -> tuple[int, ...]:
        """What changes when something happens that is not just a heartbeat."""
        return self.opened, self.failed, self.closed, self.left, self.received, self.recovered, self.not_recovered

    def add(self, other: Counts) -> None:
        """Count in what another process has."""
        for field in attrs.fields(Counts):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@attrs.define
class Tally:
    """All that a process measures; owned by its generator."""

    counts: Counts = attrs.field(factory=Counts)
    reasons: Counter[str] = attrs.field(factory=Counter)
    """Why connections failed or were closed."""
    handshakes: Histogram = attrs.field(factory=Histogram)
    """From connect(2) to being a member."""
    latencies: Histogram = attrs.field(factory=Histogram)
    """Of deliveries, round trips, or whatever the scenario is about."""
    whole: Histogram = attrs.field(factory=Histogram)
    """From a publication to its last member."""

    def merge(self, other: Tally) -> None:
        """Add what another process has measured."""
        self.counts.add(other.counts)
        self.reasons.update(other.reasons)
        self.handshakes.merge(other.handshakes)
        self.latencies.merge(other.latencies)
        self.whole.merge(other.whole)


@attrs.frozen
class Tick:
    """Now and then, while a step goes on."""

    process: int
    counts: Counts


@attrs.frozen
class StepDone:
    """A step has ended in this process."""

    process: int
    step: str
    began: float
    """By the monotonic clock, which all processes share."""
    ended: float
    cpu: float
    """Seconds of CPU this process has used in it."""
    complaint: str | None = None
    """What kept it from its end, if anything did."""


@attrs.frozen
class Finished:
    """The last word of a process."""

    process: int
    tally: Tally
    resident_before: int
    """Bytes of its memory before it had any connection, and the most it had with them."""
    resident_after: int
