"""What all scenarios have in common: members who connect, and a loop with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

import attrs

from trioroom.bench.handshakes import Opening, Wanted
from trioroom.bench.options import BenchOptions, Protocol, Share
from trioroom.bench.pulse import Pulse
from trioroom.bench.shared import Shared
from trioroom.bench.swarm import Swarm
from trioroom.bench.tally import Tally
from trioroom.bench.target import Target

WAIT = 0.05  # seconds that a turn waits at most, so that ticks are about in time
RETRY_INTERVAL = 1.0
"""Seconds after which a second message finds out whether all members are in their room: a plain one is not told.
Each further one takes twice as long."""
_MEMBERS_IN_TIME = 50_000  # who get a message within that interval; more members, more time
_QUIET = 0.2  # seconds without a message after which none of these is taken to be under way, or more if they were slow


@attrs.frozen(kw_only=True)
class Step:
    """A part of a scenario that all processes begin together."""

    name: str
    """That of the method, and with spaces what the reader sees."""
    measured: bool = False
    """Its rates and CPU shares are those of the run."""


OPEN = Step(name="open")
WARM_UP = Step(name="warm_up")
SETTLE = Step(name="settle")
LOAD = Step(name="load", measured=True)


class Play:
    """One process's part in a scenario. The parent has all processes take the steps of its `plan` one after another."""

    steps: ClassVar[tuple[Step, ...]]
    """All that it may have."""

    def __init__(
        self, share: Share, target: Target, swarm: Swarm, opening: Opening, pulse: Pulse, shared: Shared
    ) -> None:
        self.share = share
        self.options = share.options
        self.target = target
        self.swarm = swarm
        self.opening = opening
        self.pulse = pulse
        self.shared = shared
        self._messages: dict[int, bytes] = {}
        self._knocking = 0.0  # seconds until all had heard

    @classmethod
    def plan(cls, options: BenchOptions) -> tuple[Step, ...]:
        """The steps that a run with these options takes."""
        return cls.steps

    @property
    def tally(self) -> Tally:
        """What is counted."""
        return self.swarm.tally

    def room_of(self, number: int) -> int:
        """The room of a member, for a target with numbers in it; unless it matters each has its own."""
        return self.share.first + number

    def message_to(self, room: int) -> bytes:
        """A message of the size asked for, as a frame; made once for each room, and in plain mode for all."""
        key = 0 if self.options.protocol is Protocol.PLAIN else room
        if (message := self._messages.get(key)) is None:
            message = self._messages[key] = self.target.message(room, self.options.payload)
        return message

    def open(self) -> None:
        """Connect all members, and join."""
        self.opening.want([Wanted(number, self.room_of(number)) for number in range(self.share.members)])
        self.drive(lambda: not self.opening.left, "members to join")

    def settle(self) -> None:
        """Let pass what is still under way."""
        latest = time.monotonic()

        def hear(descriptor: int, count: int) -> None:
            nonlocal latest
            latest = time.monotonic()

        self.swarm.on_messages = hear
        quiet = max(_QUIET, self._knocking)  # the next one may just have set out
        while time.monotonic() < latest + quiet:
            self.hold(WAIT)
        self.tally.counts.received = 0
        self.swarm.frames.inspect = None

    def hold(self, seconds: float) -> None:
        """Only answer heartbeats for so long."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.swarm.turn(min(left, WAIT))
            self.pulse.beat(None)

    def drive(self, done: Callable[[], bool], waiting_for: str) -> None:
        """Serve the connections until ``done``, which is asked after each turn and may send.

        Raises:
            Stalled: nothing happens any more.
        """
        while not done():
            self.swarm.turn(WAIT)
            self.pulse.beat(waiting_for)

    def knock_until_heard(self, silent: set[int], knock: Callable[[], object], done: Callable[[], bool]) -> None:
        """Have messages sent until each descriptor of ``silent`` has got one; learn how such a message looks.

        Args:
            knock: sends them; called again after `RETRY_INTERVAL`, and then more and more seldom.
            done: whether those elsewhere have got one too.
        Raises:
            Stalled: some never get any.
        """
        frames = self.swarm.frames
        began = time.monotonic()
        due, pause = began, RETRY_INTERVAL * max(1, self.options.members / _MEMBERS_IN_TIME)

        def heard(descriptor: int, count: int) -> None:
            self.tally.counts.received += descriptor in silent  # which is progress; set back before the load
            silent.discard(descriptor)

        def all_heard() -> bool:
            nonlocal due, pause
            if done() and not silent:
                return True
            if (now := time.monotonic()) >= due:
                due, pause = now + pause, 2 * pause
                knock()
            return False

        frames.inspect = frames.expect
        self.swarm.on_messages = heard
        self.swarm.on_lost = lambda descriptor, number: silent.discard(descriptor)
        self.drive(all_heard, "a message of the room to reach all its members; does it publish to each?")
        self._knocking = time.monotonic() - began
