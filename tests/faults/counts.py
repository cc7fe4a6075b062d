"""How many messages a ``gap`` says are lost, in rooms without offsets that would tell."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import attrs

from tests.faults.records import Entry, Joined, Publication, Received, Record, Run, Told, Violation
from tests.faults.rooms import kind_of
from trioroom import Overflow

LATE: Final = 15.0
"""Seconds that a message may come late, such as when its node was stopped."""
Published: TypeAlias = Mapping[str, Sequence[Publication]]
"""In one room, by publisher."""


def check_counts(run: Run) -> Iterator[Violation]:
    """All that are missing there for certain, and no more than may be."""
    published: defaultdict[str, defaultdict[str, list[Publication]]] = defaultdict(lambda: defaultdict(list))
    for publication in run.publications:
        published[publication.room][publication.publisher].append(publication)
    for record in run.records:
        kind = kind_of(record.room)
        # Under LATEST a gap comes before what it is about, and not in its place.
        if kind.history is None and kind.overflow in (Overflow.DROP_OLDEST, Overflow.DROP_NEWEST):
            yield from _check_record(record, published[record.room])


def _check_record(record: Record, published: Published) -> Iterator[Violation]:
    before = _Before(math.inf)
    for index, entry in enumerate(record.entries):
        match entry:
            case Told(_, "overflow", int(lost)):
                before.lost += lost
            case Told(at) | Joined(at):  # what is missing after these has not been counted
                before = _Before(at)
            case Received(at, key):
                if before.lost:
                    least, most = _bounds(published, before, _firsts(record.entries[index:]), at)
                    if not least <= before.lost <= most:
                        where = f"{record.who} ({record.kind}) in {record.room} on node {record.node}"
                        what = f"{before.lost} told to be lost before {key}, where {least} are missing, {most} at most"
                        yield Violation("gaps tell how many", where, what)
                    before.behind_gap.clear()
                    before.lost = 0
                publisher, number = _parts(key)
                before.ever[publisher] = before.behind_gap[publisher] = number


@attrs.define
class _Before:
    """What a member has got before a gap: the last number of each publisher."""

    since: float
    """When it joined, or a gap without a number came."""
    ever: dict[str, int] = attrs.field(factory=dict)
    behind_gap: dict[str, int] = attrs.field(factory=dict)
    """Of those that have come since the gap before."""
    lost: int = 0
    """By the gap, or several with nothing between them."""


def _firsts(entries: Sequence[Entry]) -> dict[str, int]:
    """The first number of each publisher that comes before there is another gap."""
    firsts: dict[str, int] = {}
    for entry in entries:
        if not isinstance(entry, Received):
            break
        publisher, number = _parts(entry.key)
        firsts.setdefault(publisher, number)
    return firsts


def _bounds(published: Published, before: _Before, after: Mapping[str, int], at: float) -> tuple[int, int]:
    """How many must be lost in a gap, and may be: a publisher with nothing on one side of it leaves that open."""
    least = most = 0
    earliest = before.since - LATE
    for publisher, publications in published.items():
        low, high = before.ever.get(publisher, 0), after.get(publisher, math.inf)
        between = [each for each in publications if low < each.number < high and each.began <= at]
        most += sum(each.acknowledged is None or each.acknowledged >= earliest for each in between)
        if publisher in before.behind_gap and publisher in after:
            least += sum(each.acknowledged is not None for each in between)
    return least, most


def _parts(key: str) -> tuple[str, int]:
    publisher, _, number = key.partition(":")
    return publisher, int(number)
