from __future__ import annotations

from trioroom._core.overflow import Overflow, Tally
from trioroom._core.statistics import Deliveries, Totals, deliveries_of


def test_what_went_nowhere_else_was_sent() -> None:
    tally = Tally(offered=100, queued=7, dropped=20, unsent=3, slow_consumers=1)
    assert deliveries_of(tally) == Deliveries(100, 70, 7, 20, 3, 1)


def test_counts_of_rooms_that_are_over_stay_in_the_sum_of_their_policy() -> None:
    totals = Totals()
    totals.close(Overflow.DISCONNECT, Tally(offered=5))
    totals.close(Overflow.DISCONNECT, Tally(offered=6))
    totals.close(Overflow.LATEST, Tally(offered=7, dropped=7))
    sums = totals.deliveries([(Overflow.DISCONNECT, Tally(offered=100, queued=1))])
    assert sums[Overflow.DISCONNECT] == Deliveries(111, 110, 1, 0, 0, 0)
    assert sums[Overflow.LATEST] == Deliveries(7, 0, 0, 7, 0, 0)
    assert sums[Overflow.DROP_NEWEST] == Deliveries(0, 0, 0, 0, 0, 0)


def test_room_that_is_over_before_all_is_sent_is_counted_as_things_stand() -> None:
    totals, tally = Totals(), Tally(offered=5, queued=5)
    totals.close(Overflow.DISCONNECT, tally)
    assert totals.deliveries([])[Overflow.DISCONNECT] == Deliveries(5, 0, 5, 0, 0, 0)
    tally.queued, tally.unsent = 3, 1
    assert totals.deliveries([])[Overflow.DISCONNECT] == Deliveries(5, 1, 3, 0, 1, 0)
    tally.queued = 0
    for _ in range(2):
        totals.close(Overflow.DISCONNECT, Tally())
        assert totals.deliveries([])[Overflow.DISCONNECT] == Deliveries(5, 4, 0, 0, 1, 0)


def test_sum_is_of_its_moment() -> None:
    totals, tally = Totals(), Tally(offered=5)
    before = totals.deliveries([(Overflow.DISCONNECT, tally)])
    tally.offered += 1
    assert before[Overflow.DISCONNECT].offered == 5
    assert totals.deliveries([(Overflow.DISCONNECT, tally)])[Overflow.DISCONNECT].offered == 6
