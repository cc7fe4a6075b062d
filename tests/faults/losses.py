"""No silent loss: what was acknowledged has come, or something in its place says that it may be missing."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import attrs

from tests.faults.records import Ended, Joined, Publication, Received, Record, Run, Told, Violation
from tests.faults.rooms import kind_of
from trioroom import Overflow


def check_losses(run: Run) -> Iterator[Violation]:
    """In every record."""
    acknowledged: defaultdict[str, defaultdict[str, list[Publication]]] = defaultdict(lambda: defaultdict(list))
    for publication in run.publications:
        if publication.acknowledged is not None:
            acknowledged[publication.room][publication.publisher].append(publication)
    for record in run.records:
        yield from _check_record(record, acknowledged[record.room])


def _check_record(record: Record, acknowledged: Mapping[str, Sequence[Publication]]) -> Iterator[Violation]:
    readings = {publisher: _Reading(publications) for publisher, publications in acknowledged.items()}
    newest_will_do = kind_of(record.room).overflow is Overflow.LATEST
    has_joined = False
    for entry in record.entries:
        match entry:
            case Joined(at, _, _, recovered):
                if not has_joined or recovered is False:
                    _excuse(readings, at)
                has_joined = True
            case Told(at):
                _excuse(readings, at)
            case Received(_, key):
                publisher, _, number = key.partition(":")
                if publisher in readings:
                    missing = readings[publisher].receive(int(number))
                    if missing and not newest_will_do:
                        yield _violation(record, missing, f"missing with no gap in their place, before {key}")
            case Ended(_, _, settled=True) if has_joined:
                for reading in readings.values():
                    if missing := reading.owed[-1:] if newest_will_do else reading.owed:
                        yield _violation(record, missing, "never came, and no gap says so")


@attrs.define
class _Reading:
    """How far one member has come in what one publisher has published."""

    publications: Sequence[Publication]
    _next: int = 0
    _excused: int = 0
    """So many of the first of them need not come, until one comes: it is behind what is missing."""

    @property
    def owed(self) -> Sequence[Publication]:
        """What is still to come."""
        return self.publications[max(self._next, self._excused) :]

    def excuse(self, at: float) -> None:
        """What was published before need not come any more. What began later cannot have been meant."""
        self._excused = bisect_right(self.publications, at, key=lambda each: each.began)

    def receive(self, number: int) -> Sequence[Publication]:
        """What should have come before."""
        came = bisect_right(self.publications, number, key=lambda each: each.number)
        missing = [each for each in self.owed if each.number < number]
        self._next = max(self._next, came)
        if came and self.publications[came - 1].number == number:  # where another one is, nobody knows
            self._excused = 0
        return missing


def _excuse(readings: Mapping[str, _Reading], at: float) -> None:
    for reading in readings.values():
        reading.excuse(at)


def _violation(record: Record, missing: Sequence[Publication], what: str) -> Violation:
    where = f"{record.who} ({record.kind}) in {record.room} on node {record.node}"
    keys = ", ".join(each.key for each in missing[:5])
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return Violation("no silent loss", where, f"{keys}{more} {what}")
