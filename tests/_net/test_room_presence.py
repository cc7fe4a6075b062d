"""Who is in a room, as its members are told: pushes, pages, users with several connections, other servers."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from trio.testing import MockClock

import trioroom
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import V1Peer, cancel_at_step, open_peer, open_test_server, open_v1_peer

if TYPE_CHECKING:
    from tests._net.conftest import OpenV1

ROOM = "hall/a"
SETTINGS = trioroom.Settings(ping_interval=math.inf, drain_timeout=2.0, close_timeout=1.0, leave_timeout=1.0)


class Hall(trioroom.Room):
    """The token says who one is, and ``on_join`` what one shows."""

    presence: bool | trioroom.Presence = True

    async def on_join(self, member: trioroom.Member) -> object:
        if member.token is not None:
            member.user = member.token
            member.info = {"name": member.token.title()}
        return None

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        if message.data == "crash":
            self.nursery.start_soon(self.crash)
        page = self.who(0 if message.data == "none" else 100)
        return [page.count, page.version, page.more, [[user.user, user.info] for user in page.members]]

    async def crash(self) -> None:
        raise ValueError("a task of the room is broken")


def app_of(**settings: float) -> trioroom.App:
    presence = trioroom.Presence(**settings) if settings else True  # type: ignore[arg-type]  # the numbers among them
    app = trioroom.App()
    app.route("hall/{name}", type("Hall", (Hall,), {"presence": presence}))
    return app


@asynccontextmanager
async def joined(server: trioroom.Server, user: str | None, **options: str) -> AsyncIterator[V1Peer]:
    """A v1 peer in the room."""
    async with open_v1_peer(server, **options) as v1:  # type: ignore[arg-type]  # the subprotocol
        if user is not None:
            await v1.request("auth", token=user)
        await v1.join(ROOM)
        yield v1


@asynccontextmanager
async def two_servers(**settings: float) -> AsyncIterator[tuple[trioroom.Server, trioroom.Server]]:
    backplane = MemoryBackplane()
    with trio.fail_after(1_000):
        async with (
            open_test_server(app_of(**settings), SETTINGS, backplane=backplane) as here,
            open_test_server(app_of(**settings), SETTINGS, backplane=backplane) as there,
        ):
            yield here, there


async def push(v1: V1Peer) -> tuple[int, int, list[str] | None, list[str] | None]:
    """Version, count, who joined and who left, of the next push."""
    envelope = await v1.receive()
    assert (envelope["type"], envelope["room"]) == ("presence", ROOM)
    joined = envelope.get("joined")
    users = None if joined is None else [present["user"] for present in joined]
    return envelope["version"], envelope["count"], users, envelope.get("left")


async def is_silent(v1: V1Peer, seconds: float = 5.0) -> bool:
    with trio.move_on_after(seconds):
        await v1.receive()
        return False
    return True


# -- pushes ----------------------------------------------------------------------------------------


async def test_members_on_all_servers_are_told_who_comes_and_goes(subprotocol: str, autojump_clock: MockClock) -> None:
    async with two_servers() as (here, there), joined(here, "ann", subprotocol=subprotocol) as ann:
        assert await ann.receive() == {
            **{"type": "presence", "room": ROOM, "version": 1, "count": 1},
            **{"joined": [{"user": "ann", "info": {"name": "Ann"}}], "left": []},
        }
        async with joined(there, "bob") as bob:
            assert await push(ann) == (2, 2, ["bob"], [])
            assert await push(bob) == (1, 2, ["ann", "bob"], [])
        assert await push(ann) == (3, 1, [], ["bob"])


async def test_user_is_the_members_id_where_nobody_says_who_it_is(autojump_clock: MockClock) -> None:
    async with two_servers() as (here, _), joined(here, None) as v1:
        assert (await v1.receive())["joined"] == [{"user": v1.id}]


async def test_plain_members_count_and_are_told_nothing(autojump_clock: MockClock) -> None:
    async with two_servers() as (here, _), joined(here, "ann") as ann:
        assert await push(ann) == (1, 1, ["ann"], [])
        async with open_peer(here, f"/{ROOM}") as plain:
            assert (await push(ann))[:2] == (2, 2)
            with trio.move_on_after(10) as scope:
                await plain.receive()
            assert scope.cancelled_caught
        assert (await push(ann))[:2] == (3, 1)


async def test_changes_within_an_interval_are_told_together(autojump_clock: MockClock) -> None:
    async with two_servers(interval=3.0) as (here, there), joined(here, "ann") as ann, AsyncExitStack() as stack:
        assert await push(ann) == (1, 1, ["ann"], [])
        start = trio.current_time()
        for user in ("bob", "cid", "dot"):
            await stack.enter_async_context(joined(there, user))
            await trio.sleep(0.5)
        version, count, users, left = await push(ann)
        assert (version, count, sorted(users or ()), left) == (2, 4, ["bob", "cid", "dot"], [])
        assert trio.current_time() - start == pytest.approx(3.0)
        assert await is_silent(ann)


async def test_change_too_large_to_list_tells_the_number(autojump_clock: MockClock) -> None:
    async with two_servers(max_listed=2) as (here, there), joined(here, "ann") as ann, AsyncExitStack() as stack:
        assert await push(ann) == (1, 1, ["ann"], [])
        for user in ("bob", "cid", "dot"):
            await stack.enter_async_context(joined(there, user))
        assert await push(ann) == (2, 4, None, None)
        answer = await ann.request("who", room=ROOM)
        assert [present["user"] for present in answer["members"]] == ["ann", "bob", "cid", "dot"]


async def test_room_that_only_counts_names_nobody(autojump_clock: MockClock) -> None:
    async with two_servers(count_only=True) as (here, there), joined(here, "ann") as ann:
        assert await push(ann) == (1, 1, None, None)
        async with joined(there, "bob"):
            assert await push(ann) == (2, 2, None, None)
            assert (await ann.request("who", room=ROOM))["code"] == "unsupported"
            rows = [["ann", {"name": "Ann"}], ["bob", {"name": "Bob"}]]
            assert (await ann.request("call", room=ROOM, data=""))["data"] == [2, 2, False, rows]


# -- users -----------------------------------------------------------------------------------------


async def test_reconnect_within_grace_shows_nothing(autojump_clock: MockClock) -> None:
    async with two_servers(grace=2.0) as (here, there), joined(here, "ann") as ann:
        await push(ann)
        async with joined(there, "bob"):
            assert await push(ann) == (2, 2, ["bob"], [])
        await trio.sleep(1.9)
        for server in (there, here, there):  # the same server or another one
            async with joined(server, "bob"):
                await trio.sleep(1.9)
            await trio.sleep(1.9)
        left_at = trio.current_time() - 1.9
        assert await push(ann) == (3, 1, [], ["bob"])
        assert trio.current_time() - left_at == pytest.approx(2.0)


async def test_user_is_present_while_any_of_its_connections_is(autojump_clock: MockClock) -> None:
    async with two_servers(grace=0.0) as (here, there), joined(here, "ann") as ann, AsyncExitStack() as stack:
        await push(ann)
        places = [await stack.enter_async_context(joined(server, "bob")) for server in (here, here, there)]
        assert await push(ann) == (2, 2, ["bob"], [])
        for place in places[1:]:
            await place.request("leave", room=ROOM)
            assert await is_silent(ann)
        await places[0].request("leave", room=ROOM)
        assert await push(ann) == (3, 1, [], ["bob"])


async def test_room_stays_for_the_grace_of_its_last_user_and_not_longer(autojump_clock: MockClock) -> None:
    async with two_servers(grace=2.0) as (here, there), joined(here, "ann"):
        async with joined(there, "bob"):
            pass
        await trio.sleep(1.9)
        assert there.statistics().rooms == 1
        await trio.sleep(0.2)
        assert there.statistics().rooms == 0


async def test_server_does_not_wait_for_a_grace_when_it_stops(autojump_clock: MockClock) -> None:
    with trio.fail_after(1):
        async with open_test_server(app_of(grace=100.0)) as server:
            async with joined(server, "ann"):
                pass


async def test_users_of_a_server_that_stops_are_gone(autojump_clock: MockClock) -> None:
    backplane = MemoryBackplane()
    async with open_test_server(app_of(grace=100.0), SETTINGS, backplane=backplane) as here, joined(here, "ann") as ann:
        await push(ann)
        async with open_test_server(app_of(grace=100.0), SETTINGS, backplane=backplane) as there, joined(there, "bob"):
            assert await push(ann) == (2, 2, ["bob"], [])
        assert await push(ann) == (3, 1, [], ["bob"])


async def test_user_that_leaves_and_joins_at_once_does_not_flicker(autojump_clock: MockClock) -> None:
    async with two_servers() as (here, there), joined(here, "ann") as ann:
        await push(ann)
        async with joined(there, "bob") as bob:
            await push(ann)
            await bob.request("leave", room=ROOM)
            await bob.join(ROOM)
            assert await is_silent(ann)
            assert await push(bob) == (1, 2, ["ann", "bob"], [])  # of the first time; the room is the same
            assert await is_silent(bob)


# -- who -------------------------------------------------------------------------------------------


async def test_who_pages_what_has_been_announced(autojump_clock: MockClock) -> None:
    async with two_servers() as (here, there), joined(here, "ann") as ann, AsyncExitStack() as stack:
        await push(ann)
        for user in ("cid", "bob"):
            await stack.enter_async_context(joined(there, user))
        first = await ann.request("who", room=ROOM, limit=2)
        assert (first["members"], first["version"]) == ([{"user": "ann", "info": {"name": "Ann"}}], 1)
        await push(ann)
        page = await ann.request("who", room=ROOM, limit=2)
        assert page == {
            **{"type": "ok", "id": ann.last_id, "room": ROOM, "version": 2, "count": 3, "more": True},
            "members": [{"user": "ann", "info": {"name": "Ann"}}, {"user": "bob", "info": {"name": "Bob"}}],
        }
        page = await ann.request("who", room=ROOM, limit=2, after="bob")
        assert ([present["user"] for present in page["members"]], page["more"]) == (["cid"], False)
        assert (await ann.request("who", room=ROOM, after="cid"))["members"] == []


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_who_has_a_bound(limit: int, autojump_clock: MockClock) -> None:
    async with two_servers() as (here, _), joined(here, "ann") as ann:
        assert (await ann.request("who", room=ROOM, limit=limit))["code"] == "bad_envelope"
        assert (await ann.request("who", room="hall/b"))["code"] == "not_joined"


async def test_handler_that_asks_for_nobody_is_wrong(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with two_servers() as (here, _), joined(here, "ann") as ann:
        assert (await ann.request("call", room=ROOM, data="none"))["code"] == "failed"
    assert "limit=0 must be positive" in caplog.text


async def test_room_without_presence_tells_nothing(autojump_clock: MockClock) -> None:
    app = trioroom.App()
    app.route("hall/{name}", type("Hall", (Hall,), {"presence": False}))
    async with open_test_server(app, SETTINGS) as server, joined(server, "ann") as ann:
        assert (await ann.request("who", room=ROOM))["code"] == "unsupported"
        assert (await ann.request("call", room=ROOM, data=""))["code"] == "failed"  # Room.who raises


# -- what goes wrong -------------------------------------------------------------------------------


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
