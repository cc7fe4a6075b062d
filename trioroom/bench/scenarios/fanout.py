"""``fanout``: one room; one member publishes, all members get it.

Members are numbered from 0 over all processes; number 0 publishes. It may or may not get its own messages, as its
room likes, so the next message waits for all members but that one. Everyone sees messages in one order, so that the
how-many-th of a member tells which message it is, and nothing in it has to be read.
"""

from __future__ import annotations

import time
from typing import ClassVar

from trioroom.bench.pulse import Stalled
from trioroom.bench.scenarios.base import LOAD, OPEN, SETTLE, WARM_UP, Play, Step
from trioroom.bench.shared import NOT_WARM


class Fanout(Play):
    """Deliveries a second, and how long they take."""

    steps: ClassVar[tuple[Step, ...]] = (OPEN, WARM_UP, SETTLE, LOAD)

    def room_of(self, number: int) -> int:
        """All in one."""
        return 0

    def warm_up(self) -> None:
        """Find out that all members are in the room."""
        self._publisher = self._find_publisher()
        self._message = self.target.message(0, self.options.payload)
        silent = set(self.swarm.members) - {self._publisher}

        def knock() -> None:
            if self._publisher is not None:
                self.swarm.send(self._publisher, self._message)

        def done() -> bool:
            if not silent and self.shared.completed[self.share.process] == NOT_WARM:
                self.shared.completed[self.share.process] = 0
            return self._publisher is None or self.shared.slowest != NOT_WARM

        self.knock_until_heard(silent, knock, done)

    def settle(self) -> None:
        """Count from here on: the publisher's process may begin a moment before this one."""
        super().settle()
        window = self.options.in_flight
        highest = max(self.swarm.members, default=0)
        self._got = [0] * (highest + 1)  # messages of each member, by descriptor
        self._base = 0  # messages that all members here have got
        self._fresh = [0] * (window + 1)  # members who got to a message in this turn, less those who got past it
        self._arrived = [0] * window  # members who have got a message, for those in flight
        self._waiting_for = len(self.swarm.members) - (self._publisher is not None)
        self.swarm.on_messages = self._receive
        self.swarm.on_lost = self._lose

    def load(self) -> None:
        """Publish, count, publish."""
        self._deadline = time.monotonic() + self.options.duration
        if self._publisher is not None:
            self.swarm.pending[self.shared.descriptor] = self.shared
            self.swarm.poller.watch(self.shared.descriptor)
        try:
            self.drive(self._go_on, "the room's messages")
        finally:
            self.shared.end()
            self.swarm.on_lost = lambda descriptor, number: None
            if self._publisher is not None:
                del self.swarm.pending[self.shared.descriptor]
                self.swarm.poller.forget(self.shared.descriptor)

    def _find_publisher(self) -> int | None:
        """The descriptor of member 0; None in other processes."""
        if self.share.process:
            return None
        for descriptor, number in self.swarm.members.items():
            if number == 0:
                return descriptor
        raise Stalled("member 0, who is to publish, is not connected")

    def _receive(self, descriptor: int, count: int) -> None:
        got = self._got[descriptor]
        self._got[descriptor] = got + count
        self.tally.counts.received += count
        if descriptor != self._publisher:
            at, window = got - self._base, len(self._arrived)
            self._fresh[min(at, window)] += 1
            self._fresh[min(at + count, window)] -= 1  # beyond is what others publish into the room

    def _lose(self, descriptor: int, number: int) -> None:
        """Wait for this member no more; what it has got is in the counts of messages that others wait for."""
        if descriptor == self._publisher:
            raise Stalled("the publisher's connection was closed")
        self._account()
        for message in range(self._base, self._got[descriptor]):
            self._arrived[message % len(self._arrived)] -= 1
        self._waiting_for -= 1

    def _go_on(self) -> bool:
        """After each turn: see how far the messages have come; publish. Whether that is all."""
        self._account()
        published = self.shared.published
        if self._publisher is not None:
            published = self._publish(published)
            return self.shared.ended and self.shared.slowest >= published
        return self.shared.ended and self._base >= published

    def _account(self) -> None:
        """Take in what came in this turn, which is taken for one moment."""
        now = time.monotonic()
        window, sent = len(self._arrived), self.shared.sent
        members = 0
        for at in range(window):
            members += self._fresh[at]
            if members:
                slot = (self._base + at) % window
                self.tally.latencies.add(now - sent[slot], members)
                self._arrived[slot] += members
        self._fresh = [0] * (window + 1)
        base, published = self._base, self.shared.published
        while base < published and self._arrived[base % window] >= self._waiting_for:
            self._arrived[base % window] = 0
            base += 1
        if base != self._base:
            self._base = base
            self.shared.completed[self.share.process] = base
            if self._publisher is None:
                self.shared.ring()

    def _publish(self, published: int) -> int:
        """As much as may be in flight; how many that makes."""
        now = time.monotonic()
        slowest, window = self.shared.slowest, len(self._arrived)
        for message in range(self._reported, slowest):
            self.tally.whole.add(now - self.shared.sent[message % window])
        self._reported = slowest
        if now >= self._deadline or published == self.options.messages:
            self.shared.end()
        while not self.shared.ended and published - slowest < window and published != self.options.messages:
            assert self._publisher is not None
            self.shared.sent[published % window] = time.monotonic()
            published += 1
            self.shared.publish(published)  # before it can arrive anywhere
            self.tally.counts.sent += 1
            self.swarm.send(self._publisher, self._message)
        return published

    _reported = 0  # messages whose way through the whole room has been measured
