"""Presence where rooms, stores, joins and members fail, and what a server with it refuses to start with."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from trio.testing import MockClock

import trioroom
from tests._net.test_room_presence import ROOM, SETTINGS, Hall, app_of, is_silent, joined, push, two_servers
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import cancel_at_step, open_test_server, open_v1_peer

if TYPE_CHECKING:
    from tests._net.conftest import OpenV1


async def test_room_that_fails_takes_its_users_away(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with two_servers(grace=100.0) as (here, there), joined(here, "ann") as ann:
        await push(ann)
        async with joined(there, "bob") as bob:
            assert await push(ann) == (2, 2, ["bob"], [])
            await bob.send({"type": "call", "id": 9, "room": ROOM, "data": "crash"})
            assert await push(ann) == (3, 1, [], ["bob"])
        async with joined(there, "bob"):
            assert await push(ann) == (4, 2, ["bob"], [])
    assert "a task of the room is broken" in caplog.text


async def test_store_that_has_lost_everything_makes_nobody_leave_who_is_there(autojump_clock: MockClock) -> None:
    backplane = MemoryBackplane()
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(open_test_server(app_of(), SETTINGS, backplane=backplane)) for _ in range(3)
        ]
        ann, bob, _ = [
            await stack.enter_async_context(joined(server, user))
            for server, user in zip(servers, ("ann", "bob", "cid"), strict=True)
        ]
        assert [(await push(ann))[1] for _ in range(2)] == [1, 3]
        assert (await push(bob))[1] == 2
        assert (await push(bob))[1] == 3
        of_ann, of_bob, _ = backplane.presence._rooms[ROOM].values()
        of_ann.listener.resynced({})
        of_bob.put("bob", b'{"name":"Bob"}')  # what a store does for those that are alive; cid's server is not
        start = trio.current_time()
        assert await push(ann) == (3, 2, [], ["cid"])
        assert trio.current_time() - start == pytest.approx(5.0)


async def test_joins_that_come_to_nothing_are_not_seen(autojump_clock: MockClock) -> None:
    class Choosy(Hall):
        async def on_join(self, member: trioroom.Member) -> object:
            await super().on_join(member)
            if member.user == "bob":
                raise trioroom.JoinRefused("not you")
            return None

    app = trioroom.App()
    app.route("hall/{name}", Choosy)
    async with open_test_server(app, SETTINGS) as server, joined(server, "ann") as ann, open_v1_peer(server) as bob:
        await push(ann)
        await bob.request("auth", token="bob")
        assert (await bob.request("join", room=ROOM))["code"] == "denied"
        assert await is_silent(ann)


async def test_member_that_reads_nothing_is_closed_and_holds_up_nobody(
    open_narrow_v1: OpenV1, autojump_clock: MockClock
) -> None:
    narrow = attrs.evolve(SETTINGS, max_outbox_messages=6)
    async with open_test_server(app_of(interval=0.1, grace=0.0), narrow) as server, joined(server, "ann") as ann:
        await push(ann)
        async with open_narrow_v1(server) as slow:
            await slow.request("auth", token="slow")
            await slow.join(ROOM)
            assert await push(ann) == (2, 2, ["slow"], [])
            left: list[str] = []
            for number in range(6):
                async with joined(server, f"user{number}"):
                    assert (await push(ann))[2] == [f"user{number}"]
                left += (await push(ann))[3] or []
            while "slow" not in left:
                left += (await push(ann))[3] or []
            assert sorted(left) == ["slow", *(f"user{number}" for number in range(6))]


async def test_join_and_leave_can_be_cancelled_at_any_moment(autojump_clock: MockClock) -> None:
    backplane = MemoryBackplane()
    async with open_test_server(app_of(grace=0.0), SETTINGS, backplane=backplane) as here, joined(here, "ann") as ann:
        await push(ann)
        own_seat = set(backplane.presence._rooms[ROOM])
        for step in range(400):
            with cancel_at_step(step) as scope:
                async with (
                    open_test_server(app_of(grace=0.0), SETTINGS, backplane=backplane) as there,
                    joined(there, "bob"),
                ):
                    pass
            await trio.sleep(5)
            page = await ann.request("who", room=ROOM)
            assert [present["user"] for present in page["members"]] == ["ann"]
            assert backplane.presence._rooms[ROOM].keys() == own_seat
            if not scope.cancelled_caught:
                break
        else:
            raise AssertionError("it takes more steps than are tried")


# -- what a server is started with -----------------------------------------------------------------


class Blind(MemoryBackplane):
    @property
    def presence(self) -> None:  # type: ignore[override]  # the contract allows it
        return None


async def test_server_refuses_a_room_that_its_backplane_cannot_serve() -> None:
    app = app_of()
    with pytest.raises(ValueError, match=r"Hall\.presence needs a backplane .* Blind does not"):
        async with open_test_server(app, backplane=Blind()):
            pass
    async with open_test_server(app):  # it has not been taken
        pass
    app = trioroom.App()
    app.route("hall", trioroom.Room)
    async with open_test_server(app, backplane=Blind()):
        with pytest.raises(ValueError, match="needs a backplane"):
            app.route("hall/{name}", Hall)


@pytest.mark.parametrize("presence", [None, 1, "yes", {"interval": 1}])
def test_presence_is_a_bool_or_settings(presence: object) -> None:
    app = trioroom.App()
    with pytest.raises(TypeError, match=r"Hall\.presence="):
        app.route("hall/{name}", type("Hall", (Hall,), {"presence": presence}))
