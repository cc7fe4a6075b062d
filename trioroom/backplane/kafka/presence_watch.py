"""Which nodes live, as far as one of them can tell: no I/O.

A node is dead when it has not been heard for a lease while we could have heard it. The measure is our own beat: when it
comes round, all that was written before it has been read. While ours do not come round we judge nobody, and when they
do again all others have a whole lease from there on, as the broker may have been away for them too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from trioroom.backplane.kafka.presence_table import Node

BEATS: Final = 3
"""In the time of a lease: two may fail."""
_GRACE: Final = 0.1  # seconds after which we look at a node that should have been heard


class Watch:
    """Owned by `KafkaPresence`; ``now`` is its clock."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._returned = -math.inf  # when a beat of ours came round last
        self._hears_since = math.inf  # without a break

    def begin(self, now: float) -> None:
        """The log has been read anew: when a node wrote what we have read just now is not known."""
        self._hears_since = now

    def returned(self, now: float) -> None:
        """A beat of ours has come round."""
        if now - self._returned > self._lease / 2:  # else some others could not have come back in time
            self._hears_since = now
        self._returned = now

    def silent(self, nodes: Mapping[str, Node], sent: float) -> Iterator[str]:
        """Those of ``nodes`` that are dead, now that our beat has come round which we sent at ``sent``."""
        for name, node in nodes.items():
            if node.dead_since is None and sent > self._ends(node):
                yield name

    def due(self, nodes: Mapping[str, Node], own: str, now: float) -> float:
        """When our next beat is."""
        ends = (self._ends(node) for name, node in nodes.items() if node.dead_since is None and name != own)
        return max(now + _GRACE, min(now + self._lease / BEATS, min(ends, default=math.inf) + _GRACE))

    def _ends(self, node: Node) -> float:
        return max(node.heard, self._hears_since) + self._lease
