"""Rooms that are closed while their node cannot reach the broker: nobody stays behind in the table."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

from tests.backplane.brokers import Broker, brokers
from tests.backplane.outages import ROOM, STAYS, open_scene, open_seat
from trioroom.backplane import removals
from trioroom.testing.presence_conformance import Watcher

pytestmark = brokers("valkey", "nats")
SOON = 15.0
"""Seconds: long before a lease ends, which would take away as much, and time for attempts that a busy machine fails."""


@pytest.fixture(autouse=True)
def close_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removals, "CLOSE_TIMEOUT", 0.2)


async def test_rows_of_a_room_that_was_closed_in_an_outage_go_when_it_is_over(broker: Broker) -> None:
    async with open_scene(broker) as scene, open_seat(scene.behind, STAYS, Watcher()):
        async with scene.watched(ROOM) as watcher:
            await scene.close_in_an_outage(ROOM)
            assert watcher.rows() == [("ghost", b"1")]
            await trio.sleep(2)  # attempts fail, and the link is given up
            assert watcher.gone == []
            scene.proxy.heal()
            with trio.fail_after(SOON):
                await watcher.wait_count(0)
            assert len(watcher.gone) == 1


async def test_room_that_is_opened_again_meanwhile_shows_no_ghosts(broker: Broker) -> None:
    # It opens when the link is back, which takes as long as others have for all: that the probe fails, and an attempt.
    async with open_scene(broker, timeout=10.0) as scene, open_seat(scene.behind, STAYS, Watcher()):
        await scene.close_in_an_outage(ROOM)
        scene.proxy.heal()
        again = Watcher()
        async with scene.watched(ROOM) as watcher, open_seat(scene.behind, ROOM, again) as seat:
            seat.put("ann", b"2")
            with trio.fail_after(SOON):
                await again.wait_rows()
                await watcher.wait_rows(("ann", b"2"))


async def test_rows_of_a_node_that_has_closed_all_its_rooms_go_too(broker: Broker) -> None:
    async with open_scene(broker) as scene, scene.watched(ROOM) as watcher:
        await scene.close_in_an_outage(ROOM)
        scene.proxy.heal()
        with trio.fail_after(SOON):
            await watcher.wait_count(0)


async def test_more_than_a_node_can_remember_goes_with_its_lease_and_nothing_else_does(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removals, "MAX_OWED", 3)
    rooms = [f"room/{number}" for number in range(5)]
    counts = set()

    async def watch(watcher: Watcher) -> None:
        while True:
            counts.add(watcher.count)
            await watcher.wait_changed()

    async with open_scene(broker, presence_lease=6.0) as scene, AsyncExitStack() as stack:
        seat = await stack.enter_async_context(open_seat(scene.behind, STAYS, Watcher()))
        stays = await stack.enter_async_context(scene.watched(STAYS))
        seat.put("stays", b"1")
        await stays.wait_count(1)
        [before] = stays.seats
        watchers = [await stack.enter_async_context(scene.watched(room)) for room in rooms]
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(watch, stays)
        await scene.close_in_an_outage(*rooms)
        scene.proxy.heal()
        with trio.fail_after(6 + SOON):
            for watcher in watchers:
                await watcher.wait_count(0)
        assert before not in stays.seats, "the node is the same one"
        nursery.cancel_scope.cancel()
    assert counts <= {1, 2}, "who stayed was gone for a moment"
