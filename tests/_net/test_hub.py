"""The hub: which rooms are active on this node, and who is connected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

import trioroom
from trioroom._core.routes import Routes
from trioroom._net.active_room import RoomFailed
from trioroom._net.connection import Connection
from trioroom._net.hub import Hub, UnknownRoom
from trioroom._wire.encoding import encoding_for
from trioroom._wire.http import Request
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import cancel_at_step

if TYPE_CHECKING:
    from tests.conftest import Recorder


class Hall(trioroom.Room):
    """Opens and closes as slowly as a test wants."""

    opened: list[Hall]
    may_open: trio.Event
    may_close: trio.Event

    async def on_open(self) -> None:
        self.opened.append(self)
        await self.may_open.wait()
        if self.name == "hall/broken":
            raise ValueError("on_open is broken")

    async def on_close(self) -> None:
        await self.may_close.wait()


class Scene:
    """A hub and those who use it. Its rooms open and close at once unless an event is renewed."""

    def __init__(self, hub: Hub, nursery: trio.Nursery, make_recorder: type[Recorder]) -> None:
        self.hub = hub
        self.nursery = nursery
        self.welcomed: list[tuple[trioroom.Member, object]] = []
        self._make_recorder = make_recorder

    def connection(self) -> Connection:
        """One that nobody serves."""
        request = Request("GET", "/", "/", "", ())
        hub, transport = self.hub, self._make_recorder()
        connection = Connection(hub.new_id(), transport, request, encoding_for(None, None), hub.limits)
        connection.nursery = self.nursery
        return connection

    async def join(self, name: str) -> trioroom.Member:
        """A member with a connection of its own."""
        return await self.hub.join(
            name, self.connection(), "token", lambda member, state, place: self.welcomed.append((member, state))
        )

    async def leave(self, member: trioroom.Member) -> None:
        assert await member._active.leave(member, "left")


@asynccontextmanager
async def open_scene(make_recorder: type[Recorder], leave_timeout: float = 0.01) -> AsyncIterator[Scene]:
    """With a deadline; at the end its rooms are cancelled."""
    Hall.opened, Hall.may_open, Hall.may_close = [], trio.Event(), trio.Event()
    Hall.may_open.set()
    Hall.may_close.set()
    routes: Routes[type[trioroom.Room]] = Routes()
    routes.add("hall/{name}", Hall)
    settings = trioroom.Settings(close_timeout=0.01, leave_timeout=leave_timeout)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            yield Scene(Hub(routes, MemoryBackplane(), settings, nursery), nursery, make_recorder)
            nursery.cancel_scope.cancel()


# -- rooms -----------------------------------------------------------------------------------------------


async def test_members_of_one_name_share_a_room_and_others_do_not(make_recorder: type[Recorder]) -> None:
    async with open_scene(make_recorder) as scene:
        one, two, other = [await scene.join(name) for name in ("hall/a", "hall/a", "hall/b")]
        assert one.room is two.room is not other.room
        assert scene.hub.rooms.keys() == {"hall/a", "hall/b"}
        assert scene.welcomed == [(one, None), (two, None), (other, None)]
        assert (one.token, other.room.params) == ("token", {"name": "b"})


async def test_joiners_that_come_at_once_open_a_room_once(make_recorder: type[Recorder]) -> None:
    async with open_scene(make_recorder) as scene:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(scene.join, "hall/a")
        assert len({member.room for member, _ in scene.welcomed}) == len(Hall.opened) == 1


async def test_room_ends_with_its_last_member_and_its_name_is_free(make_recorder: type[Recorder]) -> None:
    async with open_scene(make_recorder) as scene:
        one, two = [await scene.join("hall/a") for _ in range(2)]
        await scene.leave(one)
        await wait_all_tasks_blocked()
        assert scene.hub.rooms["hall/a"].room is two.room
        await scene.leave(two)
        await wait_all_tasks_blocked()
        assert scene.hub.rooms == {}
        assert (await scene.join("hall/a")).room is not one.room


async def test_joiners_wait_while_the_room_of_that_name_closes_and_share_the_next_one(
    make_recorder: type[Recorder],
) -> None:
    async with open_scene(make_recorder, leave_timeout=5.0) as scene:
        Hall.may_close = trio.Event()
        await scene.leave(await scene.join("hall/a"))
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(scene.join, "hall/a")
            await scene.join("hall/b")  # which has nothing to wait for
            await wait_all_tasks_blocked()
            assert [room.name for room in Hall.opened] == ["hall/a", "hall/b"]
            Hall.may_close.set()
        assert [room.name for room in Hall.opened] == ["hall/a", "hall/b", "hall/a"]
        for member, _ in scene.welcomed[1:]:  # else they are waited for, as they have no connection that ends
            await scene.leave(member)


@pytest.mark.parametrize("name", ["", "hall", "hall/", "hall/a/b", "/hall/a", "Hall/a", "hall/" + "ä" * 126])
async def test_name_that_no_route_matches_or_that_is_too_long_is_unknown(
    name: str, make_recorder: type[Recorder]
) -> None:
    async with open_scene(make_recorder) as scene:
        assert not scene.hub.knows(name)
        with pytest.raises(UnknownRoom):
            await scene.join(name)
        assert scene.hub.rooms == {}
        assert scene.hub.knows("hall/" + "ä" * 125)  # 255 bytes


async def test_room_that_fails_to_open_fails_all_its_joiners_and_is_tried_anew(make_recorder: type[Recorder]) -> None:
    async with open_scene(make_recorder) as scene:
        failed: list[str] = []

        async def join() -> None:
            try:
                await scene.join("hall/broken")
            except RoomFailed as exc:
                failed.append(str(exc))

        for attempt in (1, 2):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(join)
            assert failed == ["hall/broken"] * 3 * attempt
            assert len(Hall.opened) == attempt
        await wait_all_tasks_blocked()
        assert scene.hub.rooms == {}


async def test_join_can_be_cancelled_at_any_step_and_keeps_no_place(make_recorder: type[Recorder]) -> None:
    async with open_scene(make_recorder) as scene:
        for step in range(30):
            Hall.may_close = trio.Event()
            await scene.leave(await scene.join("hall/a"))  # it closes: who joins now waits
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_and_set, Hall.may_close)
                with cancel_at_step(step) as scope:
                    member = await scene.join("hall/a")
            if not scope.cancelled_caught:
                await scene.leave(member)
            await wait_all_tasks_blocked()
            assert scene.hub.rooms == {}, f"cancelled at step {step}"
        assert not scope.cancelled_caught, "range() is too short for all steps"


async def wait_and_set(event: trio.Event) -> None:
    for _ in range(3):
        await trio.lowlevel.checkpoint()
    event.set()


# -- connections -----------------------------------------------------------------------------------------


async def test_hub_is_empty_until_a_connection_comes_and_after_the_last_has_gone(
    make_recorder: type[Recorder],
) -> None:
    async with open_scene(make_recorder) as scene:
        with assert_checkpoints():
            await scene.hub.wait_empty()
        for _ in range(2):
            one, two = scene.connection(), scene.connection()
            scene.hub.add(one)
            scene.hub.add(two)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(scene.hub.wait_empty)
                await wait_all_tasks_blocked()
                scene.hub.remove(one)
                await wait_all_tasks_blocked()
                assert nursery.child_tasks
                scene.hub.remove(two)


async def test_who_waits_for_an_empty_hub_is_not_fooled_by_one_that_comes_as_the_last_goes(
    make_recorder: type[Recorder],
) -> None:
    async with open_scene(make_recorder) as scene:
        first, second = scene.connection(), scene.connection()
        scene.hub.add(first)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.hub.wait_empty)
            await wait_all_tasks_blocked()
            scene.hub.remove(first)
            scene.hub.add(second)
            await wait_all_tasks_blocked()
            assert nursery.child_tasks
            scene.hub.remove(second)


def test_ids_are_64_random_bits(make_recorder: type[Recorder]) -> None:
    hub = Hub.__new__(Hub)  # it needs nothing of one
    ids = {hub.new_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert {len(bytes.fromhex(id)) for id in ids} == {8}
