"""``connect``: as many handshakes as the server takes; ``idle``: members who are just there."""

from __future__ import annotations

from typing import ClassVar

import attrs

from trioroom.bench.options import BenchOptions
from trioroom.bench.scenarios.base import LOAD, OPEN, SETTLE, WARM_UP, Play, Step
from trioroom.bench.scenarios.fanout import Fanout


class Connect(Play):
    """Handshakes a second."""

    steps: ClassVar = (attrs.evolve(OPEN, measured=True),)


class Idle(Fanout):
    """Memory for each of them, and whether any is lost; then maybe a few messages that all get."""

    _rest: ClassVar = (OPEN, Step(name="stay", measured=True))
    steps: ClassVar = (*_rest, WARM_UP, SETTLE, attrs.evolve(LOAD, measured=False))

    @classmethod
    def plan(cls, options: BenchOptions) -> tuple[Step, ...]:
        """No messages unless asked for: most of them make no sense in a room of somebody else's."""
        return cls._rest if options.messages is None else cls.steps

    def room_of(self, number: int) -> int:
        """Each its own if it may be, as long as there is nothing to be said to all."""
        return Play.room_of(self, number) if self.options.messages is None else super().room_of(number)

    def stay(self) -> None:
        """Answer heartbeats."""
        self.hold(self.options.duration)
