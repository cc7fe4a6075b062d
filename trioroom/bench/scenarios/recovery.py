"""``recovery``: all members lose their connection at once, miss messages, and come back for them.

Member 0 stays, as somebody has to publish what the others miss.
"""

from __future__ import annotations

import time
from typing import ClassVar

from trioroom.bench.handshakes import Answer, Handshake, Wanted
from trioroom.bench.pulse import Stalled
from trioroom.bench.scenarios.base import OPEN, Play, Step

MISSED = 100
"""Messages that are missed unless the options say otherwise."""
_LAST_ID = 4


class Recovery(Play):
    """How long it takes until everybody has everything."""

    steps: ClassVar = (OPEN, Step(name="cut"), Step(name="miss"), Step(name="back", measured=True))

    def room_of(self, number: int) -> int:
        """All in one."""
        return 0

    def open(self) -> None:
        """Remember where each is in the history."""
        self._positions: dict[int, object] = {}
        self.opening.on_joined = self._note
        super().open()
        if not all(self._positions.values()):
            raise Stalled("a position: the room keeps no history")

    def cut(self) -> None:
        """Lose all connections but the publisher's."""
        self.swarm.cut(d for d, number in self.swarm.members.items() if not self._publishes(number))

    def miss(self) -> None:
        """Publish while nobody hears it."""
        for descriptor, number in self.swarm.members.items():
            if self._publishes(number):
                self._publish(descriptor)

    def back(self) -> None:
        """Come back, all at once, and get what was missed."""
        self._began: dict[int, float] = {}
        self._missing: dict[int, int] = {}
        self.opening.on_joined = self._expect
        self.swarm.on_messages = self._receive
        numbers = [number for number in range(self.share.members) if not self._publishes(number)]
        self.opening.want([Wanted(n, 0, self._positions[n]) for n in numbers if n in self._positions])
        self.drive(lambda: not self.opening.left and not self._missing, "what members had missed")

    @property
    def _missed(self) -> int:
        return self.options.messages or MISSED

    def _publishes(self, number: int) -> bool:
        return self.share.first + number == 0

    def _note(self, handshake: Handshake, answer: Answer) -> None:
        self._positions[handshake.wanted.number] = answer.get("position")

    def _publish(self, descriptor: int) -> None:
        """All but the last without an id; that one's answer comes when all are published."""
        answered = False

        def inspect(frame: bytes) -> None:
            nonlocal answered
            answered = answered or f'"id":{_LAST_ID}'.encode() in frame

        self.swarm.frames.inspect = inspect
        self.swarm.on_messages = lambda descriptor, count: None
        for message in range(self._missed):
            last = message == self._missed - 1
            self.swarm.send(descriptor, self.target.message(0, self.options.payload, _LAST_ID if last else None))
            self.tally.counts.sent += 1
        self.drive(lambda: answered, "the room to take what is published")
        self.swarm.frames.inspect = None

    def _expect(self, handshake: Handshake, answer: Answer) -> None:
        number = handshake.wanted.number
        if answer.get("recovered"):
            self._began[number] = handshake.began
            self._missing[number] = self._missed
        else:
            self.tally.counts.not_recovered += 1

    def _receive(self, descriptor: int, count: int) -> None:
        number = self.swarm.members[descriptor]
        if number not in self._missing:
            return
        self.tally.counts.received += count
        self._missing[number] -= count
        if self._missing[number] <= 0:
            del self._missing[number]
            self.tally.counts.recovered += 1
            self.tally.latencies.add(time.monotonic() - self._began[number])
