"""The collector's settings in a serving process, and that they are given back."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import trio

import trioroom
from trioroom._net.gc_policy import YOUNG_OBJECTS, server_gc_policy


@pytest.fixture(autouse=True)
def _collector_is_left_as_found() -> Iterator[None]:
    before = gc.get_threshold()
    gc.unfreeze()  # see tests/heap.py
    yield
    gc.set_threshold(*before)
    gc.freeze()


def test_young_objects_are_looked_at_less_often_while_it_is_open() -> None:
    before = gc.get_threshold()
    with server_gc_policy():
        assert gc.get_threshold() == (YOUNG_OBJECTS, *before[1:])
    assert gc.get_threshold() == before


def test_what_was_there_is_frozen_while_it_is_open() -> None:
    assert gc.get_freeze_count() == 0
    with server_gc_policy():
        assert gc.get_freeze_count() > 1_000
    assert gc.get_freeze_count() == 0


def test_what_the_program_has_frozen_stays_so() -> None:
    gc.freeze()
    with server_gc_policy():
        pass
    assert gc.get_freeze_count() > 1_000


def test_garbage_of_before_is_collected_rather_than_frozen() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.itself = self

    reference = weakref.ref(Cycle())
    with server_gc_policy():
        assert reference() is None  # frozen, it would stay for ever


def test_error_inside_gives_the_settings_back() -> None:
    before = gc.get_threshold()
    with pytest.raises(RuntimeError), server_gc_policy():
        raise RuntimeError
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)


@pytest.mark.parametrize("threshold", [0, YOUNG_OBJECTS + 1])
def test_collector_that_the_program_has_switched_off_or_slowed_down_stays_so(threshold: int) -> None:
    gc.set_threshold(threshold, 5, 5)
    with server_gc_policy():
        assert gc.get_threshold() == (threshold, 5, 5)
    assert gc.get_threshold() == (threshold, 5, 5)


async def test_serve_has_it_and_open_server_has_not(nursery: trio.Nursery) -> None:
    before = gc.get_threshold()
    async with trioroom.open_server(trioroom.App(), port=0):
        assert gc.get_threshold() == before
    async with trio.open_nursery() as inner:
        await inner.start(lambda task_status: trioroom.serve(trioroom.App(), port=0, task_status=task_status))
        assert gc.get_threshold()[0] == YOUNG_OBJECTS
        inner.cancel_scope.cancel()
    assert gc.get_threshold() == before
