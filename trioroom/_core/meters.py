"""What a server and its link count while they work: plain numbers, read by whoever asks.

Nothing here is looked up by what a peer says, so that no peer can make it grow. Messages for members are counted
apart, by room (`overflow.Tally`).
"""

from __future__ import annotations

from collections import Counter
from enum import Enum

import attrs

from trioroom._core.histogram import COUNTS, SECONDS, Histogram
from trioroom._core.overflow import SlowConsumer
from trioroom.closecodes import CloseCode

OTHER = "other"
"""What is none of those that have names."""
HOOKS = ("authenticate", "authorize", "on_open", "on_join", "on_message", "on_call", "on_leave", "on_close")
MESSAGES_PER_TIMING = 16
"""Of so many calls of ``on_message`` one is timed: two looks at the clock and a bisection are 2 % of an echo."""
GAP_REASONS = ("overflow", "backplane", "expired")
_CLOSE_CODES = frozenset(CloseCode)


class Outcome(Enum):
    """What became of one who was let in to speak, and is no connection."""

    HTTP = "http"
    """It wanted no WebSocket, and got an answer."""
    REFUSED = "refused"
    """It got an error."""
    TIMED_OUT = "timed_out"
    """It took too long to ask."""
    FAILED = "failed"
    """It was gone before we had answered."""


class Timings:
    """How long things took, in seconds, and how many went together."""

    __slots__ = ("batches", "hooks", "passes")

    def __init__(self) -> None:
        self.passes = Histogram(SECONDS)
        """Of the fan-out: from the first member to the last."""
        self.batches = Histogram(COUNTS)
        """Publications in each pass."""
        self.hooks = {hook: Histogram(SECONDS) for hook in HOOKS}

    def count_pass(self, seconds: float, publications: int) -> None:
        """Of the fan-out."""
        self.passes.observe(seconds)
        self.batches.observe(publications)


@attrs.define
class Meters:
    """Of one server, since it was opened."""

    messages_received: int = 0
    """From peers; requests, in v1."""
    received_bytes: int = 0
    """From connections, as they come over the wire but for TLS."""
    sent_bytes: int = 0
    """To connections, likewise; handed to the kernel or to TLS.

    Whoever offers a frame to connections counts it, of many at once, as mostly all is sent. A connection takes off what
    has to wait or is lost, and its writer counts that again when it goes out.
    """
    publications: int = 0
    """Made here, and taken by the backplane."""
    failed_publications: int = 0
    """Made here, and not taken."""
    connections: Counter[str] = attrs.field(factory=Counter)
    """That are open, by what they speak."""
    members: int = 0
    """In rooms now, joining ones included."""
    opened: int = 0
    """Connections: handshakes that came to something."""
    closed: Counter[int] = attrs.field(factory=Counter)
    """Connections, by their close codes; 0 is all that are not in the catalogue."""
    handshakes: Counter[tuple[Outcome, int | None]] = attrs.field(factory=Counter)
    """The others, by what became of them and the status that was answered."""
    slow_consumers: Counter[SlowConsumer] = attrs.field(factory=Counter)
    """Connections, by why they were."""
    gaps: Counter[str] = attrs.field(factory=Counter)
    """Times that a room has lost publications on the way to this server, by reason."""
    timings: Timings = attrs.field(factory=Timings)

    def end_handshake(self, outcome: Outcome, status: int | None = None) -> None:
        """One who was let in has been answered with ``status``, or not at all."""
        self.handshakes[outcome, status] += 1

    def open(self, speaks: str) -> None:
        """A connection was accepted."""
        self.opened += 1
        self.connections[speaks] += 1

    def close(self, speaks: str, code: int) -> None:
        """It is over. The code may be the peer's choice."""
        self.connections[speaks] -= 1
        self.closed[code if code in _CLOSE_CODES else 0] += 1

    def lose(self, reason: str) -> None:
        """A room has a gap; the reason is the backplane's."""
        self.gaps[reason if reason in GAP_REASONS else OTHER] += 1


class LinkMeters:
    """Of a backplane's link to its broker."""

    __slots__ = ("batches", "outages", "publishing", "round_trips")

    def __init__(self) -> None:
        self.outages = 0
        """Times that it went down after it had been up."""
        self.publishing = Histogram(SECONDS)
        """Seconds from a command, such as a publication, to the broker's answer; of those that are answered together
        the first one."""
        self.round_trips = Histogram(SECONDS)
        """Seconds from a publication to its delivery here, as probes find it."""
        self.batches = Histogram(COUNTS)
        """Commands that went to the broker together."""


def closed_by_code(closed: Counter[int]) -> dict[str, int]:
    """What `Meters.closed` has, for people: each code, those that nobody was closed with too, and `OTHER`."""
    return {**{str(code.value): closed[code] for code in CloseCode}, OTHER: closed[0]}
