"""Who is in a room, as its members are told: pushes, pages, users with several connections, other servers."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock

import trioroom
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import V1Peer, open_peer, open_test_server, open_v1_peer

if TYPE_CHECKING:
    pass

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
