"""``connect``: as many handshakes as the server takes; ``idle``: members who are just there."""

from __future__ import annotations

from typing import ClassVar

import attrs

from trioroom.bench.scenarios.base import OPEN, Play, Step


class Connect(Play):
    """Handshakes a second."""

    steps: ClassVar = (attrs.evolve(OPEN, measured=True),)


class Idle(Play):
    """Memory for each of them, and whether any is lost."""

    steps: ClassVar = (OPEN, Step(name="stay", measured=True))

    def stay(self) -> None:
        """Answer heartbeats."""
        self.hold(self.options.duration)
