"""An event that is made when the first one waits for it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trioroom._net.lazy_event import LazyEvent


async def test_all_who_wait_go_on_when_it_happens() -> None:
    event = LazyEvent()
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(event.wait)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 2
        assert not event.is_set()
        event.set()
        assert event.is_set()
    event.set()


async def test_every_path_is_a_checkpoint() -> None:
    event = LazyEvent()
    event.set()
    with assert_checkpoints():
        await event.wait()
    with trio.CancelScope() as scope:
        scope.cancel()
        await event.wait()
        pytest.fail("it was cancelled")  # pragma: no cover
    assert scope.cancelled_caught
