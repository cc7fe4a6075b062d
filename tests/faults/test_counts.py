"""A gap tells how many messages are missing in its place, as far as anybody can know."""

from __future__ import annotations

import pytest

from tests.faults.checker import check
from tests.faults.hand_made import DROPPING, END, promises_broken, published, received, record
from tests.faults.records import Publication, Run, Told


@pytest.mark.parametrize(("lost", "broken"), [(1, True), (2, False), (3, False), (4, True)])
def test_gap_that_tells_another_number_where_there_are_no_offsets(lost: int, broken: bool) -> None:
    """What was not acknowledged may have been lost there, and may not."""
    publications = published(DROPPING, 5)
    publications[2].acknowledged = None
    entries = [*received(1), Told(4.9, "overflow", lost), *received(5)]
    run = Run(publications=publications, records=[record(DROPPING, *entries, END)])
    assert promises_broken(run) == ({"gaps tell how many"} if broken else set())


def test_gaps_share_what_is_lost_where_nobody_knows_in_which_one() -> None:
    """Of the publisher ``pub``, nothing has come between them."""
    other = received(4, publisher="other")
    for lost, broken in ((1, set()), (5, {"gaps tell how many"})):
        entries = [*received(1), Told(3.5, "overflow", lost), *other, Told(5.5, "overflow", 2), *received(6)]
        publications = [*published(DROPPING, 6), Publication("other", 4, DROPPING, 4.0, 4.1)]
        run = Run(publications=publications, records=[record(DROPPING, *entries, END)])
        assert promises_broken(run) == broken


def test_gap_for_an_outage_leaves_open_how_many_are_lost() -> None:
    entries = [*received(1), Told(3.9, "overflow", 1), Told(3.9, "backplane"), *received(4)]
    assert check(Run(publications=published(DROPPING, 4), records=[record(DROPPING, *entries, END)])) == []
