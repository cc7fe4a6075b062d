"""A pass over a large room gives way to others again and again, sooner if its messages are large."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from tests.conftest import app_of
from trioroom.testing import open_peer, open_test_server

if TYPE_CHECKING:
    from tests.conftest import Recorder


@pytest.mark.parametrize(("size", "at_once"), [(10, 63), (8_000, 38), (100_000, 7), (700_000, 1), (3_000_000, 1)])
async def test_slice_is_bounded_in_sends_and_in_bytes(
    make_recorder: type[Recorder], nursery: trio.Nursery, autojump_clock: MockClock, size: int, at_once: int
) -> None:
    app = app_of(trioroom.Room)
    async with open_test_server(app) as server:
        recorders = [make_recorder() for _ in range(3 * at_once)]
        for recorder in recorders:
            recorder.connect(nursery, server, "/room/a")
        await wait_all_tasks_blocked()
        for recorder in recorders:
            recorder.settle()
        sent = [0]
        await app.publish("room/a", b"x" * size)
        while sent[-1] < len(recorders):  # each turn of this task is one that others have too
            await trio.lowlevel.checkpoint()
            sent.append(sum(len(recorder.sends) for recorder in recorders))
        # Twice as many at most: the pump may be the last in one round of Trio's and the first in the next.
        assert at_once <= max(after - before for before, after in pairwise(sent)) <= 2 * at_once


async def test_small_room_speaks_while_a_large_one_is_worked_through(
    make_recorder: type[Recorder], nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    app = app_of(trioroom.Room)
    async with open_test_server(app) as server, open_peer(server, "/room/small") as one:
        recorders = [make_recorder() for _ in range(600)]
        for recorder in recorders:
            recorder.connect(nursery, server, "/room/large")
        async with open_peer(server, "/room/small") as two:
            await wait_all_tasks_blocked()
            for recorder in recorders:
                recorder.settle()
            await app.publish("room/large", b"x" * 30_000)  # which takes 33 turns, and the others nine
            await one.send("to a few")
            assert await two.receive() == "to a few"
            assert 0 < sum(len(recorder.sends) for recorder in recorders) < 600
