"""How long to wait before the next try of something that keeps failing."""

from __future__ import annotations

import attrs


@attrs.define
class Backoff:
    """How long to wait before each next try; owned by whoever tries."""

    first: float = 0.1
    """Seconds before the second try, before jitter; each further one waits twice as long."""
    most: float = 10.0
    """Seconds it never goes beyond."""
    settled: float = 30.0
    """What has lived this many seconds had a good start: the waits begin at ``first`` again."""
    _failures: int = attrs.field(default=0, init=False)

    def after(self, lived: float, chance: float) -> float:
        """Seconds to wait after a try that lived ``lived`` seconds.

        Args:
            chance: from 0 to 1, drawn by the caller; it spreads the waits over the upper half, so that
                those that went down together do not come back together.
        """
        if lived >= self.settled:
            self._failures = 0
        longest = min(self.most, self.first * 2.0 ** min(self._failures, 32))  # 32: far beyond any bound, no overflow
        self._failures += 1
        return longest * (1 + chance) / 2
