"""One bound for all that waits in a server's queues, on top of the bound that each queue has."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

_RELIEF = 1 / 8  # of the budget, made free at once when it is used up: to look for the fattest one costs a look at each


class Queue(Protocol):
    """What may be dropped to make room."""

    @property
    def queued_bytes(self) -> int:
        """How much waits in it, shared bytes included."""
        ...


class Budget:
    """Bytes that may wait in all outboxes and room channels together. One for each server.

    Bytes that several queues share count once: the queues say when the first of them takes such bytes
    and when the last has let them go. So dropping a fat queue may free little, and another one goes.
    """

    __slots__ = ("_caches", "_droppable", "dropped", "max_bytes", "used")

    def __init__(self, max_bytes: float) -> None:
        self.max_bytes = max_bytes
        """The bound; ``math.inf`` is none."""
        self.used = 0
        """Bytes that wait now."""
        self.dropped = 0
        """How many queues had to go."""
        self._droppable: dict[Queue, Callable[[], None]] = {}
        self._caches: dict[Queue, Callable[[], None]] = {}

    @property
    def droppable(self) -> int:
        """How many queues may be dropped now: the outboxes that there are."""
        return len(self._droppable)

    def add(self, size: int) -> None:
        """``size`` bytes more wait somewhere. May pass the bound: `relieve` when the queue is in order again."""
        self.used += size

    def remove(self, size: int) -> None:
        """``size`` bytes less."""
        self.used -= size

    def fits(self, size: int) -> bool:
        """Whether there is room for ``size`` bytes."""
        return self.used + size <= self.max_bytes

    def open(self, queue: Queue, drop: Callable[[], None]) -> None:
        """``queue`` may be dropped from now on; ``drop`` empties it at once and does not fail."""
        self._droppable[queue] = drop

    def open_cache(self, cache: Queue, empty: Callable[[], None]) -> None:
        """``cache`` holds what can be had elsewhere: it is emptied, again and again, before anybody loses a queue."""
        self._caches[cache] = empty

    def queues(self) -> list[Queue]:
        """Those that are open now: of very many connections the few that something waits for."""
        return list(self._droppable)

    def close(self, queue: Queue) -> None:
        """Not any more; it may have been so already."""
        self._droppable.pop(queue, None)
        self._caches.pop(queue, None)

    def relieve(self, size: int = 0) -> None:
        """If ``size`` bytes more do not fit, make room: empty caches, then drop queues, the fattest ones first.

        There may be none in the end: what waits elsewhere stays, and nobody goes for what never fits.
        """
        if self.fits(size) or size > self.max_bytes:
            return
        enough = (self.max_bytes - size) * (1 - _RELIEF)
        for cache in _fattest_first(self._caches):
            if self.used <= enough:
                return
            self._caches[cache]()
        for queue in _fattest_first(self._droppable):
            if self.used <= enough:
                return
            drop = self._droppable.pop(queue, None)
            if drop is not None:  # else it went along with another one
                self.dropped += 1
                drop()


def _fattest_first(queues: Iterable[Queue]) -> Iterator[Queue]:
    fattest = [(-waiting, number, queue) for number, queue in enumerate(queues) if (waiting := queue.queued_bytes)]
    heapq.heapify(fattest)  # mostly a few go, of very many
    while fattest:
        yield heapq.heappop(fattest)[2]
