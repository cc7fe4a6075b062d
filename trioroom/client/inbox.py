"""What waits in a client for its application to read: a bound, and what happens beyond it."""

from __future__ import annotations

import enum
from collections import deque

from trioroom.client.events import Event, Gap, Message


class FullInbox(enum.Enum):
    """What a client does when a room's inbox is full."""

    DROP_OLDEST = "drop_oldest"
    """The oldest go; a `Gap` with reason ``inbox`` stands in their place."""
    WAIT = "wait"
    """Nothing is read any more, of any room, and the server's own bounds decide.

    While somebody awaits an answer reading goes on all the same, as the answer comes behind the messages; at twice the
    bound the oldest are dropped.
    """


class Inbox:
    """The events of one room, oldest first; owned by the room."""

    def __init__(self, max_events: int, policy: FullInbox) -> None:
        self._max = max_events
        self._hard_max = max_events if policy is FullInbox.DROP_OLDEST else 2 * max_events
        self._events: deque[Event] = deque()
        self._gap: Gap | None = None  # in place of what has been dropped, before all that is left

    def __len__(self) -> int:
        return len(self._events) + (self._gap is not None)

    @property
    def is_full(self) -> bool:
        """Whether a reader that waits should stop."""
        return len(self._events) >= self._max

    def put(self, event: Event) -> None:
        """At the end, in place of the oldest if need be."""
        if len(self._events) >= self._hard_max:
            self._drop(self._events.popleft())
        self._events.append(event)

    def take(self) -> Event | None:
        """The oldest; None when there is none."""
        if self._gap is not None:
            gap, self._gap = self._gap, None
            return gap
        return self._events.popleft() if self._events else None

    def clear(self) -> None:
        """Nobody will read it."""
        self._events.clear()
        self._gap = None

    def _drop(self, event: Event) -> None:
        """Only messages are a loss, and gaps: they tell of one. Who is present is known without the events."""
        if not isinstance(event, Message | Gap):
            return
        lost = 1 if isinstance(event, Message) else event.lost
        if self._gap is None:
            self._gap = Gap("inbox", lost, event.position)
            return
        total = None if self._gap.lost is None or lost is None else self._gap.lost + lost
        self._gap = Gap("inbox", total, event.position or self._gap.position)
