"""Putting people out, on all servers: whom it concerns, how often, and what the peers get."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from tests.conftest import close_code, closed_with
from trioroom import Revocation
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import V1Peer, cancel_at_step, open_peer, open_test_server, open_v1_peer

Servers = tuple[trioroom.App, trioroom.Server, trioroom.Server]


class Club(trioroom.Room):
    """Who comes is who its token, or a plain peer's query, says."""

    left: list[str]

    async def authorize(self, member: trioroom.Member) -> None:
        member.user = member.token or member.request.query or "nobody"

    async def on_join(self, member: trioroom.Member) -> object:
        if self.params["name"] == "slow":
            await trio.sleep(1)
        return None

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        self.left.append(f"{member.user}: {reason}")


@pytest.fixture
async def servers() -> AsyncIterator[Servers]:
    """Two that are linked; the app of the first one gives the orders."""
    Club.left = []
    backplane = MemoryBackplane()
    apps = [trioroom.App(), trioroom.App()]
    async with AsyncExitStack() as stack:
        opened = []
        for app in apps:
            app.route("club/{name}", Club)
            opened.append(await stack.enter_async_context(open_test_server(app, backplane=backplane)))
        yield apps[0], opened[0], opened[1]


@asynccontextmanager
async def v1_of(server: trioroom.Server, user: str, *rooms: str) -> AsyncIterator[V1Peer]:
    async with open_v1_peer(server) as v1:
        await v1.request("auth", token=user)
        for room in rooms:
            await v1.join(f"club/{room}")
        yield v1


async def test_user_is_gone_from_all_servers_and_others_stay(servers: Servers) -> None:
    app, here, there = servers
    async with (
        v1_of(here, "ann", "a", "b") as ann,
        open_peer(there, "/club/a?ann") as plain,
        v1_of(there, "ann", "c") as far,
        v1_of(there, "bob", "a", "c") as bob,
    ):
        assert await app.disconnect(user="ann", reason="enough") == Revocation(3, 2, 0)
        for peer in (ann.peer, plain, far.peer):
            assert await closed_with(peer) == (4005, "enough")
        await wait_all_tasks_blocked()
        assert Club.left == ["ann: enough"] * 4, "two rooms of one connection"
        assert (await bob.request("ping"))["type"] == "ok"
        assert await app.disconnect(user="ann") == Revocation(0, 2, 0)


async def test_single_connection_by_its_id(servers: Servers) -> None:
    app, here, there = servers
    async with v1_of(here, "ann", "a") as one, v1_of(there, "ann", "a") as other, v1_of(there, "ann") as roomless:
        assert await app.disconnect(connection=other.id, close_code=4101) == Revocation(1, 2, 0)
        assert await closed_with(other.peer) == (4101, "")
        assert await app.disconnect(connection=roomless.id) == Revocation(1, 2, 0)
        assert await close_code(roomless.peer) == 4005
        assert (await one.request("ping"))["type"] == "ok"


async def test_who_is_about_to_join_is_one_of_them(servers: Servers) -> None:
    app, here, _ = servers
    async with v1_of(here, "ann") as ann:
        await ann.send({"type": "join", "id": 9, "room": "club/slow"})
        await wait_all_tasks_blocked()
        assert await app.disconnect(user="ann") == Revocation(1, 2, 0)
        assert await close_code(ann.peer) == 4005


async def test_user_is_put_out_of_one_room_and_its_connection_stays(servers: Servers) -> None:
    app, here, there = servers
    async with (
        v1_of(here, "ann", "a", "b") as ann,
        open_peer(there, "/club/a?ann") as plain,
        v1_of(there, "bob", "a") as bob,
    ):
        assert await app.kick("club/a", "ann", reason="be kind") == Revocation(2, 2, 0)
        assert await ann.receive() == {"type": "kicked", "room": "club/a", "code": 4002, "reason": "be kind"}
        assert await closed_with(plain) == (1000, "be kind")
        assert (await ann.request("leave", room="club/b"))["type"] == "ok"
        assert (await bob.request("ping"))["type"] == "ok"
        assert await app.kick("club/nobody", "ann") == Revocation(0, 2, 0)


async def test_crowd_is_gone_through_in_slices(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    app, here, _ = servers
    monkeypatch.setattr("trioroom._net.orders._SLICE", 3)
    async with AsyncExitStack() as stack:
        for number in range(10):
            await stack.enter_async_context(v1_of(here, "ann" if number % 2 else "bob", "a", "b"))
        assert await app.disconnect(user="ann") == Revocation(5, 2, 0)


async def test_server_alone_puts_out_too(autojump_clock: MockClock) -> None:
    Club.left = []
    app = trioroom.App()
    app.route("club/{name}", Club)
    async with open_test_server(app) as server, v1_of(server, "ann", "a") as ann:
        assert await app.disconnect(user="ann") == Revocation(1, 1, 0)
        assert await close_code(ann.peer) == 4005


async def test_identity_is_enough_be_it_in_no_room() -> None:
    async def authenticate(credentials: trioroom.Credentials) -> trioroom.Identity:
        return trioroom.Identity(credentials.token or "nobody")

    app = trioroom.App(authenticate=authenticate)
    app.route("hall", trioroom.Room)
    async with (
        open_test_server(app) as server,
        open_v1_peer(server, "/?token=ann") as ann,
        open_v1_peer(server, "/?token=bob") as bob,
    ):
        assert await app.disconnect(user="ann") == Revocation(1, 1, 0)
        assert await close_code(ann.peer) == 4005
        assert (await bob.request("ping"))["type"] == "ok"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs a user or the id of a connection"),
        ({"user": "ann", "connection": "c"}, "give one of them"),
        ({"user": ""}, "user of 0 characters"),
        ({"user": "x" * 129}, "user of 129 characters"),
        ({"user": "ann", "close_code": 1005}, "cannot go over the wire"),
        ({"user": "ann", "reason": "x" * 1_001}, "reason of 1001 characters"),
        ({"user": "ann", "reason": "\ud800"}, "surrogates not allowed"),
    ],
)
async def test_what_cannot_be_done_is_refused_at_once(
    arguments: dict[str, str], message: str, servers: Servers
) -> None:
    with pytest.raises(ValueError, match=message):
        await servers[0].disconnect(**arguments)  # type: ignore[arg-type]  # one of them is a number


async def test_a_server_is_needed() -> None:
    app = trioroom.App()
    with pytest.raises(RuntimeError, match=r"app.disconnect needs a running server"):
        await app.disconnect(user="ann")
    with pytest.raises(RuntimeError, match=r"app.kick needs a running server"):
        await app.kick("club/a", "ann")


async def test_disconnecting_can_be_cancelled_at_any_moment(servers: Servers) -> None:
    app, here, there = servers
    for step in range(100):
        async with v1_of(here, "ann", "a") as ann, v1_of(there, "ann", "a"), v1_of(there, "bob", "a") as bob:
            with cancel_at_step(step) as scope:
                await app.disconnect(user="ann")
            await app.disconnect(user="ann")
            assert await close_code(ann.peer) == 4005
            assert (await bob.request("ping"))["type"] == "ok"
        if not scope.cancelled_caught:
            break
    assert step > 2


async def test_our_clients_stay_away(autojump_clock: MockClock) -> None:
    Club.left = []
    app = trioroom.App()
    app.route("club/{name}", Club)
    async with trioroom.open_server(app, port=0) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        async with trioroom.connect(url, token="ann") as client, client.join("club/a") as room:
            assert (await app.disconnect(user="ann", reason="enough")).connections == 1
            with pytest.raises(trioroom.ConnectionClosed) as closed:
                await anext(room.events())
        assert (closed.value.code, closed.value.reason, closed.value.retry) == (4005, "enough", False)
