"""The nursery of a membership, opened when the first task comes."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioroom._net.lazy_nursery import LazyNursery
from trioroom.testing import cancel_at_step

journal: list[str] = []


async def work(name: str) -> None:
    journal.append(f"{name} begins")
    try:
        await trio.sleep_forever()
    finally:
        journal.append(f"{name} ends")


@asynccontextmanager
async def parent_nursery() -> AsyncIterator[trio.Nursery]:
    """The nursery that runs it, with a deadline; what the tasks tell begins anew."""
    journal.clear()
    with trio.fail_after(5):
        async with trio.open_nursery() as parent:
            yield parent


async def test_tasks_run_side_by_side_whether_it_is_open_already_or_not() -> None:
    async with parent_nursery() as parent:
        tasks = LazyNursery(parent)
        tasks.start_soon(work, "early")
        await wait_all_tasks_blocked()
        tasks.start_soon(work, "late")
        await wait_all_tasks_blocked()
        assert journal == ["early begins", "late begins"]
        await tasks.aclose()


async def test_aclose_ends_all_tasks_and_then_the_parent_can_end() -> None:
    async with parent_nursery() as parent:
        tasks = LazyNursery(parent)
        for name in ("a", "b"):
            tasks.start_soon(work, name)
        await wait_all_tasks_blocked()
        await tasks.aclose()
        assert sorted(journal[2:]) == ["a ends", "b ends"]
        assert not parent.child_tasks
        await tasks.aclose()


async def test_task_begins_even_when_it_is_closed_or_cancelled_before_it_opened() -> None:
    async with parent_nursery() as parent:
        tasks = LazyNursery(parent)
        tasks.start_soon(work, "closed")
        await tasks.aclose()
        tasks = LazyNursery(parent)
        tasks.start_soon(work, "cancelled")
        parent.cancel_scope.cancel()
    assert journal == ["closed begins", "closed ends", "cancelled begins", "cancelled ends"]


async def test_it_lives_on_after_its_tasks_ended_by_themselves() -> None:
    async with parent_nursery() as parent:
        tasks = LazyNursery(parent)
        for _ in range(3):
            tasks.start_soon(trio.lowlevel.checkpoint)
            await wait_all_tasks_blocked()
        tasks.start_soon(work, "another")
        await wait_all_tasks_blocked()
        assert journal == ["another begins"]
        await tasks.aclose()


async def test_what_it_cannot_run_any_more_is_refused_as_closed() -> None:
    async with parent_nursery() as parent:
        closed, cancelled = LazyNursery(parent), LazyNursery(parent)
        await closed.aclose()
        parent.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
        for tasks in (closed, cancelled):
            with pytest.raises(trio.ClosedResourceError, match="ends; it starts no more tasks"):
                tasks.start_soon(work, "too late")
    assert journal == []


async def test_what_comes_while_it_ends_begins_or_is_refused() -> None:
    async with parent_nursery() as parent:
        tasks = LazyNursery(parent)
        await wait_all_tasks_blocked()
        parent.cancel_scope.cancel()
        accepted = 0
        with trio.CancelScope(shield=True):
            try:
                while accepted < 100:
                    tasks.start_soon(work, "another")
                    accepted += 1
                    await trio.lowlevel.checkpoint()
            except trio.ClosedResourceError:
                pass
    assert 0 < accepted < 100
    assert journal.count("another begins") == journal.count("another ends") == accepted


async def test_aclose_waits_for_those_that_refuse_to_end_and_can_be_cancelled() -> None:
    async def refuse() -> None:
        with trio.CancelScope(shield=True):
            await refusing.wait()

    refusing = trio.Event()
    async with parent_nursery() as parent:
        tasks = LazyNursery(parent)
        tasks.start_soon(refuse)
        async with trio.open_nursery() as closing:
            closing.start_soon(tasks.aclose)
            await wait_all_tasks_blocked()
            assert closing.child_tasks
            closing.cancel_scope.cancel()
        refusing.set()
        await tasks.aclose()


async def test_error_of_a_task_ends_its_siblings_and_reaches_the_parent() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    with pytest.RaisesGroup(pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="broken"))):
        async with parent_nursery() as parent:
            tasks = LazyNursery(parent)
            tasks.start_soon(work, "sibling")
            await wait_all_tasks_blocked()
            tasks.start_soon(fail)
    assert journal == ["sibling begins", "sibling ends"]


async def test_it_can_be_cancelled_at_any_step() -> None:
    for step in itertools.count():
        with cancel_at_step(step) as scope:
            async with parent_nursery() as parent:
                tasks = LazyNursery(parent)
                tasks.start_soon(work, "a")
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                await tasks.aclose()
        assert journal in ([], ["a begins", "a ends"])
        if not scope.cancelled_caught:
            break
    assert step > 5
