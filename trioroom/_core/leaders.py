"""The first few of very many by a number, found in one pass that may pause."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Generic, TypeVar

T = TypeVar("T")


class Leaders(Generic[T]):
    """Up to ``size`` of those that were put in, the ones with the highest numbers above zero."""

    __slots__ = ("_heap", "_put", "_size", "floor")

    def __init__(self, size: int) -> None:
        self.floor: float = 0
        """What a number has to exceed to count: look at it before a call of `put`, which mostly is not worth it."""
        self._size = size
        self._heap: list[tuple[float, int, T]] = []  # the lowest one first; of equals the first one to come stays
        self._put = 0

    def put(self, number: float, item: T) -> None:
        """``item`` has this number."""
        if number <= self.floor:
            return
        self._put -= 1
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, (number, self._put, item))
        else:
            heapq.heappushpop(self._heap, (number, self._put, item))
        if len(self._heap) == self._size:
            self.floor = self._heap[0][0]

    def __iter__(self) -> Iterator[T]:
        """From the highest number down."""
        return (item for _, _, item in sorted(self._heap, key=lambda entry: entry[:2], reverse=True))


def take_in_turn(lists: Iterable[Iterable[T]], size: int) -> list[T]:
    """The first of each, the second of each, and so on: ``size`` different ones, as far as there are."""
    nothing = object()
    ranks = zip_longest(*lists, fillvalue=nothing)
    different = dict.fromkeys(item for rank in ranks for item in rank if item is not nothing)
    return list(different)[:size]  # type: ignore[return-value]  # what fills up is left out
