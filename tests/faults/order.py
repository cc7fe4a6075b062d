"""All members of a room see one order: what follows what in any record has no circle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise

from tests.faults.records import Received, Record, Run, Violation
from tests.faults.rooms import kind_of
from trioroom import Overflow


def check_order(run: Run, excused: Collection[str]) -> Iterator[Violation]:
    """Over all records of a room, also across gaps.

    Args:
        run: what was recorded.
        excused: publications that may be in there twice, and so have no place.
    """
    rooms: defaultdict[str, list[Record]] = defaultdict(list)
    for record in run.records:
        rooms[record.room].append(record)
    for room, records in rooms.items():
        if circle := find_circle(_orders(record, excused) for record in records):
            yield Violation("one order", room, f"each before the next one, and the last before the first: {circle}")


def _orders(record: Record, excused: Collection[str]) -> list[list[str]]:
    """What came in one order; where the newest takes the place of an older one, that is so for each publisher."""
    keys = [entry.key for entry in record.entries if isinstance(entry, Received) and entry.key not in excused]
    if kind_of(record.room).overflow is not Overflow.LATEST:
        return [keys]
    publishers: defaultdict[str, list[str]] = defaultdict(list)
    for key in keys:
        publishers[key.partition(":")[0]].append(key)
    return list(publishers.values())


def find_circle(orders: Iterable[list[list[str]]]) -> list[str]:
    """A shortest one that some orders make together; empty if there is none."""
    after: defaultdict[str, set[str]] = defaultdict(set)
    before: defaultdict[str, set[str]] = defaultdict(set)
    for order in (order for several in orders for order in several):
        for one, other in pairwise(order):
            if one != other:  # twice is no matter of order
                after[one].add(other)
                before[other].add(one)
    ready = [key for key in after if not before[key]]
    left = {*after, *before}
    while ready:  # Kahn's algorithm: what nothing comes before is in order
        key = ready.pop()
        left.discard(key)
        for other in after[key]:
            before[other].discard(key)
            if not before[other]:
                ready.append(other)
    return _shortest(after, left)


def _shortest(after: dict[str, set[str]], left: Collection[str]) -> list[str]:
    """Of the circles that go through one of those left; what merely follows on a circle has no way back."""
    circles = [circle for start in sorted(left)[:50] if (circle := _way_back(after, start, left))]
    return min(circles, key=len, default=sorted(left)[:5])


def _way_back(after: dict[str, set[str]], start: str, left: Collection[str]) -> list[str]:
    came_from: dict[str, str] = {}
    front = [start]
    while front:
        following: list[str] = []
        for key in front:
            for other in after.get(key, set()) & {*left}:
                if other == start:
                    way = [key]
                    while way[0] != start:
                        way.insert(0, came_from[way[0]])
                    return way
                if other not in came_from:
                    came_from[other] = key
                    following.append(other)
        front = following
    return []
