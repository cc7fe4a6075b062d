"""What the connections of a server share: its settings, the limits that need more than a number, and its meters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioroom._core.budget import Budget
from trioroom._core.meters import Meters
from trioroom._core.ratelimit import RateLimit

if TYPE_CHECKING:
    from trioroom.settings import Settings


_COUNTED_TOGETHER = 16  # messages


class Limits:
    """One per server."""

    __slots__ = ("budget", "control_rate", "counted_together", "message_rate", "meters", "settings")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.meters = Meters()
        self.budget = Budget(settings.max_queued_bytes)
        self.message_rate = RateLimit(settings.max_message_rate, settings.message_burst)
        # Looking at the clock for each message would be a fiftieth of what an echo costs.
        self.counted_together = max(1, min(_COUNTED_TOGETHER, settings.message_burst // _COUNTED_TOGETHER))
        self.control_rate = RateLimit(settings.max_control_rate, settings.control_burst)
