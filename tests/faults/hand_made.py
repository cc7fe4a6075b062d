"""Runs made by hand for tests of the checker: what has been published, and what a member of one room got."""

from __future__ import annotations

from tests.faults.checker import check
from tests.faults.records import Ended, Entry, Joined, Publication, Received, Record, Run
from trioroom._core.history import Position

KEPT, PASSING, DROPPING, LATEST = "kept/a", "passing/a", "dropping/a", "latest/a"


def published(room: str, count: int, publisher: str = "pub") -> list[Publication]:
    """One a second, from 1 on, each acknowledged half a second later."""
    return [Publication(publisher, number, room, float(number), number + 0.5) for number in range(1, count + 1)]


def received(*numbers: int, publisher: str = "pub", late: float = 0.2) -> list[Entry]:
    """In a room without a history."""
    return [Received(number + late, f"{publisher}:{number}") for number in numbers]


def placed(*numbers: int, epoch: str = "e", ahead: int = 0) -> list[Entry]:
    """In a room with one, where publication N has the offset N."""
    return [Received(number + 0.2, f"pub:{number}", Position(epoch, number + ahead)) for number in numbers]


def record(room: str, *entries: Entry, who: str = "anna") -> Record:
    """Of a member from before the first publication."""
    return Record(who, 0, room, "client", [Joined(0.0), *entries])


def promises_broken(run: Run) -> set[str]:
    """By name."""
    return {violation.promise for violation in check(run)}


END = Ended(99.0, "over", settled=True)
