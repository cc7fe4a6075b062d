"""When connections end that have a time of their own."""

from __future__ import annotations

from typing import cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioroom._net.connection import Connection
from trioroom._net.expiry import Expiry


class Ends(list[tuple[float, str]]):
    """What has ended, and when."""

    def note(self, connection: Connection) -> None:
        self.append((trio.current_time(), str(connection)))


def some(name: str) -> Connection:
    """Expiry only passes connections on: anything that can be told apart will do."""
    return cast(Connection, name)


@pytest.fixture
def ends() -> Ends:
    return Ends()


@pytest.fixture
async def expiry(ends: Ends, nursery: trio.Nursery, autojump_clock: MockClock) -> Expiry:
    """One that runs."""
    expiry = Expiry(ends.note)
    nursery.start_soon(expiry.run)
    await wait_all_tasks_blocked()
    return expiry


async def test_each_ends_at_its_time_whatever_the_order(expiry: Expiry, ends: Ends, autojump_clock: MockClock) -> None:
    for time, name in ((3, "c"), (1, "a"), (2, "b"), (2, "also b")):
        expiry.watch(some(name), time)
    await trio.sleep(1.5)
    expiry.watch(some("sooner"), 1.75)
    await trio.sleep(10)
    assert ends[:2] == [(1, "a"), (1.75, "sooner")]
    assert sorted(ends[2:]) == [(2, "also b"), (2, "b"), (3, "c")]
    assert len(expiry) == 0


async def test_time_that_is_past_is_now(expiry: Expiry, ends: Ends, autojump_clock: MockClock) -> None:
    await trio.sleep(5)
    expiry.watch(some("late"), 1)
    await trio.sleep(0.1)
    assert ends == [(5, "late")]


async def test_another_time_takes_the_place_of_the_first(expiry: Expiry, ends: Ends, autojump_clock: MockClock) -> None:
    expiry.watch(some("a"), 1)
    expiry.watch(some("a"), 3)
    expiry.watch(some("b"), 4)
    expiry.watch(some("b"), 2)
    await trio.sleep(10)
    assert ends == [(2, "b"), (3, "a")]


async def test_who_is_forgotten_does_not_end(expiry: Expiry, ends: Ends, autojump_clock: MockClock) -> None:
    for name in ("a", "b"):
        expiry.watch(some(name), 1)
    expiry.forget(some("a"))
    expiry.forget(some("a"))
    expiry.forget(some("never watched"))
    await trio.sleep(2)
    assert ends == [(1, "b")]


async def test_many_that_go_before_their_time_leave_no_heap_behind(
    expiry: Expiry, ends: Ends, autojump_clock: MockClock
) -> None:
    for number in range(10_000):
        expiry.watch(some(f"{number}"), 3_600 + number % 7)
        if number >= 10:
            expiry.forget(some(f"{number - 10}"))
    assert len(expiry) == 10
    assert len(expiry._heap) < 100
    await trio.sleep(4_000)
    assert sorted(name for _, name in ends) == sorted(f"{number}" for number in range(9_990, 10_000))


async def test_thousands_that_went_before_their_time_let_others_run(
    expiry: Expiry, ends: Ends, autojump_clock: MockClock
) -> None:
    for number in range(2_000):
        expiry.watch(some(f"kept {number}"), 2)
    for number in range(2_000):
        expiry.watch(some(f"gone {number}"), 1)
        expiry.forget(some(f"gone {number}"))
    await trio.sleep(1)
    left = []
    while len(expiry._heap) > 2_000:
        left.append(len(expiry._heap))
        await trio.lowlevel.checkpoint()
    assert len(left) > 4
    assert not ends


async def test_thousands_at_once_let_others_run(expiry: Expiry, ends: Ends, autojump_clock: MockClock) -> None:
    for number in range(2_000):
        expiry.watch(some(f"{number}"), 1)
    await trio.sleep(1)
    while len(ends) < 2_000:
        assert len(ends) % 256 == 0
        await trio.lowlevel.checkpoint()
