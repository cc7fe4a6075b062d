"""Which publications have gone out already, so that a publisher in doubt may try again."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Outcome = TypeVar("Outcome")


class PublicationIds(Generic[Outcome]):
    """Ids that publishers gave, for ``ttl`` seconds since their use, and what `publish` answered.

    Bounded: beyond ``max_count`` the oldest are forgotten before their time.
    Who calls it knows the time, which only grows.
    """

    def __init__(self, ttl: float, max_count: int) -> None:
        self.ttl = ttl
        """Zero remembers nothing."""
        self.max_count = max_count
        """Of all rooms together."""
        self._used: OrderedDict[tuple[str, str], tuple[Outcome, float]] = OrderedDict()  # oldest first

    def __len__(self) -> int:
        return len(self._used)

    def find(self, room: str, publication_id: str | None, now: float) -> Outcome | None:
        """The outcome of the publication with this id; None if it is not remembered, or there is no id."""
        self._forget_old(now)
        used = None if publication_id is None else self._used.get((room, publication_id))
        return None if used is None else used[0]

    def add(self, room: str, publication_id: str | None, outcome: Outcome, now: float) -> None:
        """Remember an id that `find` does not find; no id is nothing to remember."""
        if publication_id is None:
            return
        self._used[room, publication_id] = (outcome, now)
        while len(self._used) > self.max_count:
            self._used.popitem(last=False)

    def clear(self) -> None:
        """Forget them all."""
        self._used.clear()

    def _forget_old(self, now: float) -> None:
        while self._used:
            _, used = next(iter(self._used.values()))
            if now - used < self.ttl:
                return
            self._used.popitem(last=False)
