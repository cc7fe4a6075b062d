"""``echo``: each member sends, and again when the answer comes."""

from __future__ import annotations

import time
from typing import ClassVar

from trioroom.bench.scenarios.base import LOAD, OPEN, SETTLE, WARM_UP, Play


class Echo(Play):
    """Round trips a second. Answers come in the order of what they answer."""

    steps: ClassVar = (OPEN, WARM_UP, SETTLE, LOAD)

    def warm_up(self) -> None:
        """Find out that the room answers."""
        silent = set(self.swarm.members)

        def knock() -> None:
            for descriptor in silent:
                self.swarm.send(descriptor, self._message(descriptor))

        self.knock_until_heard(silent, knock, lambda: True)

    def load(self) -> None:
        """Send, get, send."""
        window = self.options.in_flight
        highest = max(self.swarm.members, default=0)
        self._got, self._asked = [0] * (highest + 1), [0] * (highest + 1)  # messages of each member, by descriptor
        self._sent = [0.0] * (window * (highest + 1))
        self._under_way = 0
        self._deadline = time.monotonic() + self.options.duration
        messages = self.options.messages
        self._left = None if messages is None else messages * self.share.members // self.options.members
        self.swarm.on_messages = self._receive
        self.swarm.on_lost = self._lose
        for descriptor in self.swarm.members:
            for _ in range(window):
                self._send(descriptor, time.monotonic())
        self.drive(lambda: self._under_way <= 0, "answers")
        self.swarm.on_lost = lambda descriptor, number: None

    def _message(self, descriptor: int) -> bytes:
        return self.message_to(self.room_of(self.swarm.members[descriptor]))

    def _send(self, descriptor: int, now: float) -> None:
        if now >= self._deadline or self._left == 0:
            return
        if self._left is not None:
            self._left -= 1
        window = self.options.in_flight
        self._sent[descriptor * window + self._asked[descriptor] % window] = now
        self._asked[descriptor] += 1
        self._under_way += 1
        self.tally.counts.sent += 1
        self.swarm.send(descriptor, self._message(descriptor))

    def _receive(self, descriptor: int, count: int) -> None:
        now = time.monotonic()
        window = self.options.in_flight
        for _ in range(count):
            answered = self._got[descriptor]
            self._got[descriptor] = answered + 1
            self.tally.counts.received += 1
            self.tally.latencies.add(now - self._sent[descriptor * window + answered % window])
            self._under_way -= 1
            self._send(descriptor, now)

    def _lose(self, descriptor: int, number: int) -> None:
        self._under_way -= self._asked[descriptor] - self._got[descriptor]
