"""Who a peer becomes by ``auth``, until when, and by which ways it may come."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import serve_websocket

import trioroom
from tests._net.authentication.conftest import LIFE, V1, Hook, Who, answer_to
from tests.conftest import closed_with, logged_traceback
from trioroom.testing import V1Peer, open_peer, open_test_server, open_v1_peer

if TYPE_CHECKING:
    from tests._net.conftest import Greet, Upgrade

# -- by auth ---------------------------------------------------------------------------------------


async def test_v1_peer_without_a_token_shows_it_before_it_joins(server: trioroom.Server, hook: Hook) -> None:
    async with open_v1_peer(server) as v1:
        refused = await v1.request("join", room="who/a")
        assert (refused["code"], refused["retry"]) == ("unauthenticated", False)
        assert refused["message"] == "this server wants to know who you are; send auth first"
        assert await v1.request("auth", token="ann") == {"type": "ok", "id": 2}
        assert (await v1.join("who/a"))["state"] == ["ann", {"name": "Ann"}]
    assert [each.token for each in hook.asked] == [None, "ann"]


async def test_joins_behind_auth_in_one_frame_wait_for_it(server: trioroom.Server) -> None:
    async with open_v1_peer(server) as v1:
        await v1.send({"type": "auth", "id": 1, "token": "ann"}, {"type": "join", "id": 2, "room": "who/a"})
        assert await v1.receive() == {"type": "ok", "id": 1}
        assert (await v1.receive())["state"] == ["ann", {"name": "Ann"}]


async def test_auth_that_is_refused_ends_a_connection_that_has_to_authenticate(server: trioroom.Server) -> None:
    async with open_v1_peer(server) as v1:
        await v1.send({"type": "auth", "id": 1, "token": "forged"}, {"type": "join", "id": 2, "room": "who/a"})
        assert (await v1.receive())["code"] == "unauthenticated"
        assert await closed_with(v1.peer) == (4003, "the signature is wrong")


async def test_peer_that_does_not_authenticate_in_time_is_closed(
    server: trioroom.Server, autojump_clock: MockClock
) -> None:
    async with open_v1_peer(server) as v1:
        begin = trio.current_time()
        await v1.request("ping")
        assert await closed_with(v1.peer) == (4003, "no auth within auth_timeout=10 s; send it right after hello")
        assert trio.current_time() - begin == pytest.approx(10)


@pytest.mark.parametrize("path", ["/?token=ann", "/"])
async def test_peer_that_is_in_is_left_alone(
    server: trioroom.Server, hook: Hook, path: str, autojump_clock: MockClock
) -> None:
    hook.without_token = None
    async with open_v1_peer(server, path) as v1:
        with trio.move_on_after(300) as scope:
            await v1.receive()
        assert scope.cancelled_caught
        assert (await v1.request("join", room="who/a"))["type"] == "ok"


async def test_fault_of_the_hook_in_auth_can_be_tried_again(
    server: trioroom.Server, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_v1_peer(server) as v1:
        hook.failure = OSError("no database")
        answer = await v1.request("auth", token="ann")
        assert (answer["code"], answer["retry"]) == ("failed", True)
        assert logged_traceback(caplog, "no database")
        hook.failure = None
        assert (await v1.request("join", room="who/a"))["code"] == "unauthenticated"
        assert (await v1.request("auth", token="ann"))["type"] == "ok"


async def test_hook_has_no_longer_than_auth_timeout_for_auth(
    server: trioroom.Server, hook: Hook, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_v1_peer(server, "/?token=ann") as v1:
        hook.hangs = True
        begin = trio.current_time()
        assert (await v1.request("auth", token="ann"))["code"] == "failed"
        assert trio.current_time() - begin == pytest.approx(10)
        assert (await v1.request("ping"))["type"] == "ok"


async def test_connection_that_ends_while_auth_is_checked_is_forgotten(
    server: trioroom.Server, hook: Hook, autojump_clock: MockClock
) -> None:
    async with open_v1_peer(server) as v1:
        hook.hangs = True
        await v1.send({"type": "auth", "id": 1, "token": "ann:60"})
        await wait_all_tasks_blocked()
    await trio.sleep(30)
    assert server.connection_count == 0
    authentication = server._hub.authentication
    assert authentication is not None
    assert (len(authentication._expiry), len(authentication._waiting)) == (0, 0)


async def test_anonymous_peer_becomes_somebody(server: trioroom.Server, hook: Hook) -> None:
    hook.without_token = None
    async with open_v1_peer(server) as v1:
        await v1.join("who/a")
        assert (await v1.request("auth", token="forged"))["code"] == "unauthenticated"
        assert (await v1.request("auth", token="nobody"))["type"] == "ok"
        assert (await v1.join("who/b"))["state"] == [None, None]
        assert (await v1.request("auth", token="ann"))["type"] == "ok"
        assert (await v1.join("who/c"))["state"] == ["ann", {"name": "Ann"}]


async def test_room_says_whom_of_them_it_lets_in(server: trioroom.Server) -> None:
    async with open_v1_peer(server, "/?token=ann") as ann, open_v1_peer(server, "/?token=root") as root:
        assert (await ann.request("join", room="who/admins"))["message"] == "admins only"
        assert (await root.join("who/admins"))["state"] == ["root", {"name": "Root"}]


# -- the end of it ---------------------------------------------------------------------------------


async def test_connection_ends_with_the_token_that_began_it(server: trioroom.Server, autojump_clock: MockClock) -> None:
    begin = trio.current_time()
    async with open_peer(server, f"/who/a?token=ann:{LIFE}") as plain, open_v1_peer(server) as v1:
        assert (await v1.request("auth", token=f"bob:{2 * LIFE}"))["expires_in"] == pytest.approx(2 * LIFE, abs=1)
        await v1.join("who/a")
        expired = (4201, "the token has expired; come back with a fresh one")
        assert await closed_with(plain) == expired
        assert trio.current_time() - begin == pytest.approx(LIFE, abs=1)
        assert await closed_with(v1.peer) == expired
        assert trio.current_time() - begin == pytest.approx(2 * LIFE, abs=1)


async def test_fresh_token_goes_on_in_place(server: trioroom.Server, autojump_clock: MockClock) -> None:
    begin = trio.current_time()
    async with open_v1_peer(server, f"/?token=ann:{LIFE}") as v1:
        await v1.join("who/a")
        first = await v1.request("call", room="who/a", data=None)
        await trio.sleep(LIFE - 5)
        assert (await v1.request("auth", token=f"ann:{LIFE}"))["expires_in"] == pytest.approx(LIFE, abs=1)
        second = await v1.request("call", room="who/a", data=None)  # still in the room, and it knows
        assert second["data"] >= first["data"]
        with trio.move_on_after(LIFE - 10) as scope:
            await v1.receive()
        assert scope.cancelled_caught
        assert (await closed_with(v1.peer))[0] == 4201
        assert trio.current_time() - begin == pytest.approx(2 * LIFE - 5, abs=1)


@pytest.mark.parametrize(
    ("token", "code"),
    [("forged", "unauthenticated"), ("ann:-1", "unauthenticated"), ("bob", "other_user"), ("nobody", "other_user")],
)
async def test_token_that_is_refused_changes_nothing(
    server: trioroom.Server, token: str, code: str, autojump_clock: MockClock
) -> None:
    begin = trio.current_time()
    async with open_v1_peer(server, f"/?token=ann:{LIFE}") as v1:
        await v1.join("who/a")
        assert (await v1.request("auth", token=token))["code"] == code
        assert (await v1.join("who/b"))["state"] == ["ann", {"name": "Ann"}]
        assert (await closed_with(v1.peer))[0] == 4201
        assert trio.current_time() - begin == pytest.approx(LIFE, abs=1)


async def test_token_that_does_not_expire_takes_the_end_away(
    server: trioroom.Server, autojump_clock: MockClock
) -> None:
    async with open_v1_peer(server, f"/?token=ann:{LIFE}") as v1:
        assert await v1.request("auth", token="ann") == {"type": "ok", "id": 1}
        with trio.move_on_after(5 * LIFE) as scope:
            await v1.receive()
        assert scope.cancelled_caught


# -- by other ways, and not at all -----------------------------------------------------------------


async def test_peers_of_trio_websocket_are_asked_likewise(
    server: trioroom.Server, upgrade: Upgrade, greet: Greet, nursery: trio.Nursery
) -> None:
    mounted = await nursery.start(serve_websocket, server.serve_websocket_request, "127.0.0.1", 0, None)

    async def stream() -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", mounted.port)

    async with await stream() as refused:
        await refused.send_all(upgrade("/who/a?token=forged"))
        answer = b""
        while not answer.endswith(b"?token=TOKEN\n"):
            answer += await refused.receive_some(1)
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b'www-authenticate: bearer error="invalid_token"\r\n' in answer.lower()
    async with await stream() as plain, await stream() as v1_stream:
        peer = await greet(plain, "/who/a?token=ann:1")
        assert await peer.receive() == '["ann",{"name":"Ann"}]'
        v1 = V1Peer(await greet(v1_stream, "/", (V1,)), "trioroom.v1.json")
        await v1.receive()
        assert (await v1.request("join", room="who/a"))["code"] == "unauthenticated"
        assert (await v1.request("auth", token="bob"))["type"] == "ok"
        assert (await v1.join("who/a"))["state"] == ["bob", {"name": "Bob"}]
        assert (await closed_with(peer))[0] == 4201


async def test_tokens_are_in_no_log(
    server: trioroom.Server, hook: Hook, upgrade: Upgrade, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = "forged:s3cret"
    for path, headers in (
        (f"/who/a?token={token}", ()),
        ("/who/a", (f"Authorization: Bearer {token}",)),
        (f"/who/a?token={token}&token=x", ()),
        ("/who/a", (f"Authorization: Bearer {token}", "Authorization: Bearer x")),
        (f"/who/a?token={token}", ("Origin: https://elsewhere.example",)),
        (f"/nowhere?token={token}", ()),
    ):
        await answer_to(server, upgrade(path, headers))
    async with open_v1_peer(server) as v1:
        await v1.request("auth", token=token)
        await closed_with(v1.peer)
    hook.failure = RuntimeError("no database")
    await answer_to(server, upgrade(f"/who/a?token={token}"))
    assert "the signature is wrong" in caplog.text
    assert "no database" in caplog.text
    assert "s3cret" not in caplog.text


async def test_server_that_does_not_ask_takes_any_token_as_before(greet: Greet) -> None:
    app = trioroom.App()
    app.route("who/{name}", Who)
    async with open_test_server(app) as server, open_v1_peer(server, "/?token=ann") as v1:
        assert await v1.request("auth", token="whatever") == {"type": "ok", "id": 1}
        assert (await v1.join("who/a"))["state"] == [None, None]
