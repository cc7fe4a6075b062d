from __future__ import annotations

import multiprocessing

from trioroom.bench.poller import open_poller
from trioroom.bench.shared import NOT_WARM, open_shared


def test_publisher_hears_of_the_others() -> None:
    shared = open_shared(multiprocessing.get_context("spawn"), 2, 4)
    assert list(shared.completed) == [NOT_WARM] * 2
    shared.completed[0], shared.completed[1] = 5, 3
    assert shared.slowest == 3
    shared.publish(6)
    assert shared.published == 6
    assert not shared.ended
    shared.end()
    assert shared.ended
    assert len(shared.sent) == 4


def test_bell_wakes_and_is_silent_when_it_was_heard_even_if_rung_too_often() -> None:
    shared = open_shared(multiprocessing.get_context("spawn"), 2, 1)
    poller = open_poller()
    poller.watch(shared.descriptor)
    assert poller.poll(0, 1) == []
    for _ in range(100_000):  # more than the pipe holds
        shared.ring()
    while poller.poll(0, 1):
        shared.advance()
    shared.advance()
    poller.close()
