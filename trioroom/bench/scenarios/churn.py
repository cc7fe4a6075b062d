"""``churn``: members come and go. Each turn the one who has been there longest leaves, and another one comes."""

from __future__ import annotations

import time
from collections import deque
from typing import ClassVar

from trioroom.bench.handshakes import Answer, Handshake, Wanted
from trioroom.bench.scenarios.base import LOAD, OPEN, WAIT, Play


class Churn(Play):
    """How long joining and leaving take at a rate."""

    steps: ClassVar = (OPEN, LOAD)

    def open(self) -> None:
        """Remember in which order they came."""
        self._waiting: deque[int] = deque()  # descriptors, the one that came first at the left
        self._said_goodbye: dict[int, float] = {}
        self.opening.on_joined = self._stand_behind
        super().open()

    def load(self) -> None:
        """Keep to the rate, also when the server does not: who is late then is seen in the times."""
        self.swarm.on_lost = self._replace
        began = time.monotonic()
        turns, all_turns = 0, max(1, int(self.options.duration * self.share.rate))

        def done() -> bool:
            nonlocal turns
            due = int((time.monotonic() - began) * self.share.rate) + 1
            while turns < min(due, all_turns) and self._waiting:
                turns += 1
                self._see_off(self._waiting.popleft())
            return turns == all_turns and not self._said_goodbye and not self.opening.left

        interval = min(WAIT, 1 / self.share.rate)
        while not done():
            self.swarm.turn(interval)
            self.pulse.beat("members to leave and others to join")
        self.swarm.on_lost = lambda descriptor, number: None

    def _stand_behind(self, handshake: Handshake, answer: Answer) -> None:
        self._waiting.append(handshake.descriptor)

    def _see_off(self, descriptor: int) -> None:
        self._said_goodbye[descriptor] = time.monotonic()
        self.swarm.leave(descriptor, self.target.leave(self.room_of(self.swarm.members[descriptor])))

    def _replace(self, descriptor: int, number: int) -> None:
        if (since := self._said_goodbye.pop(descriptor, None)) is not None:
            self.tally.latencies.add(time.monotonic() - since)
        else:
            self._waiting.remove(descriptor)  # the server closed it
        self.opening.want([Wanted(number, self.room_of(number))])
