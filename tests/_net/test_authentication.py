"""Who may come in, as whom, and until when: the app's ``authenticate`` in handshakes and by ``auth``."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked
from trio_websocket import serve_websocket

import trioroom
from tests.conftest import closed_with, logged_traceback
from trioroom.testing import V1Peer, open_peer, open_test_server, open_v1_peer

if TYPE_CHECKING:
    from tests._net.conftest import Greet, Upgrade

V1 = "Sec-WebSocket-Protocol: trioroom.v1.json"
LIFE = 60.0


class Hook:
    """Takes ``user`` and ``user:seconds`` for tokens; without one, a peer is what ``without_token`` says."""

    def __init__(self) -> None:
        self.asked: list[trioroom.Credentials] = []
        self.without_token: trioroom.Identity | Exception | None = trioroom.AuthenticationRefused("who are you?")
        self.failure: Exception | None = None
        self.hangs = False

    async def __call__(self, credentials: trioroom.Credentials) -> trioroom.Identity | None:
        self.asked.append(credentials)
        await trio.lowlevel.checkpoint()
        if self.hangs:
            await trio.sleep_forever()
        if self.failure is not None:
            raise self.failure
        if credentials.token is None:
            if isinstance(self.without_token, Exception):
                raise self.without_token
            return self.without_token
        if credentials.token == "nobody":
            return None
        user, _, seconds = credentials.token.partition(":")
        if user == "forged":
            raise trioroom.AuthenticationRefused("the signature is wrong")
        return trioroom.Identity(user, {"name": user.title()}, time.time() + float(seconds) if seconds else None)


class Who(trioroom.Room):
    """Tells everyone who they are."""

    async def authorize(self, member: trioroom.Member) -> None:
        if self.name == "who/admins" and (member.identity is None or member.identity.user != "root"):
            raise trioroom.JoinRefused("admins only")

    async def on_join(self, member: trioroom.Member) -> object:
        return [member.user if member.identity else None, member.info]

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        return member.identity and member.identity.expires_at


@pytest.fixture
def hook() -> Hook:
    return Hook()


@pytest.fixture
async def server(hook: Hook) -> AsyncIterator[trioroom.Server]:
    app = trioroom.App(authenticate=hook)
    app.route("who/{name}", Who)
    async with open_test_server(app, trioroom.Settings(ping_interval=math.inf)) as server:  # peers that do not read
        yield server


async def answer_to(server: trioroom.Server, request: bytes) -> tuple[int, str, str]:
    """Status, head and body of what ``request`` is answered with."""
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        await ours.send_all(request)
        await ours.send_eof()
        received = b"".join([bytes(data) async for data in ours]).decode("latin-1")
    head, _, body = received.partition("\r\n\r\n")
    return int(head.split()[1]), head, body


@asynccontextmanager
async def greeted(server: trioroom.Server, greet: Greet, *headers: str) -> AsyncIterator[V1Peer]:
    """A v1 peer with these headers in its handshake."""
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        v1 = V1Peer(await greet(ours, "/", (V1, *headers)), "trioroom.v1.json")
        v1.hello = await v1.receive()
        yield v1
        await trio.aclose_forcefully(ours)


# -- in the handshake ------------------------------------------------------------------------------


async def test_token_of_the_handshake_says_who_a_plain_member_is(
    server: trioroom.Server, hook: Hook, greet: Greet
) -> None:
    async with open_peer(server, "/who/a?token=ann") as peer:
        assert await peer.receive() == '["ann",{"name":"Ann"}]'
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        peer = await greet(ours, "/who/a", ("Authorization: Bearer bob",))
        assert await peer.receive() == '["bob",{"name":"Bob"}]'
        await trio.aclose_forcefully(ours)
    assert [(each.token, each.request.path) for each in hook.asked] == [("ann", "/who/a"), ("bob", "/who/a")]


@pytest.mark.parametrize(
    ("path", "subprotocol", "reason", "challenge"),
    [
        ("/who/a", (), "who are you?", "Bearer"),
        ("/who/a?token=forged", (), "the signature is wrong", 'Bearer error="invalid_token"'),
        ("/?token=forged", (V1,), "the signature is wrong", 'Bearer error="invalid_token"'),
        ("/?token=ann:-1", (V1,), "the token has expired; come back with a fresh one", 'Bearer error="invalid_token"'),
    ],
)
async def test_refusal_is_a_401_that_says_what_to_do(
    server: trioroom.Server, upgrade: Upgrade, path: str, subprotocol: tuple[str, ...], reason: str, challenge: str
) -> None:
    status, head, body = await answer_to(server, upgrade(path, subprotocol))
    assert (status, f"\r\nWWW-Authenticate: {challenge}\r\n" in f"{head}\r\n") == (401, True)
    assert body == f"{reason}; send Authorization: Bearer TOKEN, or where headers cannot be set ?token=TOKEN\n"
    assert server.connection_count == 0


async def test_two_tokens_are_refused_unseen(server: trioroom.Server, hook: Hook, upgrade: Upgrade) -> None:
    status, _, _ = await answer_to(server, upgrade("/who/a?token=ann&token=bob"))
    assert (status, hook.asked) == (400, [])


@pytest.mark.parametrize(("path", "status"), [("/nowhere?token=ann", 404), ("/who/a?token=ann", 403)])
async def test_who_would_be_refused_anyway_is_not_asked(
    server: trioroom.Server, hook: Hook, upgrade: Upgrade, path: str, status: int
) -> None:
    headers = ("Origin: https://elsewhere.example",) if status == 403 else ()
    assert (await answer_to(server, upgrade(path, headers)))[0] == status
    assert hook.asked == []


async def test_peer_that_may_be_anonymous_has_no_identity(server: trioroom.Server, hook: Hook) -> None:
    hook.without_token = None
    async with open_peer(server, "/who/a") as peer, open_v1_peer(server) as v1:
        assert await peer.receive() == "[null,null]"
        assert (await v1.join("who/a"))["state"] == [None, None]


async def test_hook_may_look_at_anything_in_the_request(server: trioroom.Server, hook: Hook, greet: Greet) -> None:
    hook.without_token = trioroom.Identity("by cookie")
    async with greeted(server, greet, "Cookie: session=abc") as v1:
        assert hook.asked[0].request.header("cookie") == "session=abc"
        assert (await v1.join("who/a"))["state"] == ["by cookie", None]


@pytest.mark.parametrize("headers", [(), ("X-Api-Key: s3cret",), ("Cookie: session=s3cret",)])
async def test_hook_is_asked_anew_for_each_of_those_who_ask_alike(
    server: trioroom.Server, hook: Hook, upgrade: Upgrade, headers: tuple[str, ...]
) -> None:
    hook.without_token = trioroom.Identity("ann")
    assert (await answer_to(server, upgrade("/who/a", headers)))[0] == 101
    hook.without_token = trioroom.AuthenticationRefused("no longer")
    status, _, body = await answer_to(server, upgrade("/who/a", headers))
    assert (status, body.partition(";")[0]) == (401, "no longer")
    assert len(hook.asked) == 2
    noted = [agreements._known for agreements in server._greeter._agreements.values()]
    assert any(noted) is not bool(headers)


async def test_hook_has_no_longer_than_the_handshake(
    server: trioroom.Server,
    hook: Hook,
    upgrade: Upgrade,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hook.hangs = True
    begin = trio.current_time()
    status, head, body = await answer_to(server, upgrade("/who/a?token=ann"))
    assert trio.current_time() - begin == pytest.approx(trioroom.Settings().handshake_timeout, abs=1.1)
    assert (status, "\r\nRetry-After: 5" in head) == (503, True)
    assert body == "credentials cannot be checked now; try again later\n"
    assert "authenticate was not done in time" in caplog.text


@pytest.mark.parametrize(
    "failure", [ValueError("no database"), trio.TooSlowError(), ExceptionGroup("", [OSError("no database")])]
)
async def test_fault_of_the_hook_is_logged_and_the_peer_told_to_come_back(
    server: trioroom.Server, hook: Hook, upgrade: Upgrade, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    hook.failure = failure
    status, _, _ = await answer_to(server, upgrade("/who/a?token=ann"))
    assert status == 503
    assert logged_traceback(caplog, "authenticate failed")


async def test_hook_that_cannot_tell_now_is_not_logged_for_each_peer(
    server: trioroom.Server, hook: Hook, upgrade: Upgrade, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_v1_peer(server) as v1:
        hook.failure = trioroom.AuthenticationUnavailable("no database")
        assert (await answer_to(server, upgrade("/who/a?token=ann")))[0] == 503
        answer = await v1.request("auth", token="ann")
        assert (answer["code"], answer["retry"]) == ("failed", True)
    assert not caplog.records


async def test_refusal_in_a_nursery_of_the_hook_is_one(server: trioroom.Server, hook: Hook, upgrade: Upgrade) -> None:
    hook.failure = ExceptionGroup("", [trioroom.AuthenticationRefused("not you")])
    status, _, body = await answer_to(server, upgrade("/who/a?token=ann"))
    assert (status, body.partition(";")[0]) == (401, "not you")


async def test_hook_that_returns_something_else_is_at_fault(upgrade: Upgrade, caplog: pytest.LogCaptureFixture) -> None:
    async def hook(credentials: trioroom.Credentials) -> trioroom.Identity | None:
        return "ann"  # type: ignore[return-value]  # which is what is tested

    app = trioroom.App(authenticate=hook)
    app.route("who/{name}", Who)
    async with open_test_server(app) as server:
        status, _, _ = await answer_to(server, upgrade("/who/a"))
    assert status == 503
    assert logged_traceback(caplog, "authenticate returned a str; it has to be a trioroom.Identity, or None")


def test_hook_that_cannot_be_called_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="authenticate='secret' must be an async function"):
        trioroom.App(authenticate="secret")  # type: ignore[arg-type]  # as above


async def test_cancelled_hook_leaves_nothing_behind(hook: Hook, upgrade: Upgrade) -> None:
    hook.hangs = True
    app = trioroom.App(authenticate=hook)
    app.route("who/{name}", Who)
    ours, theirs = memory_stream_pair()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery, open_test_server(app) as server:
            nursery.start_soon(server.serve_stream, theirs)
            await ours.send_all(upgrade("/who/a?token=ann"))
            while not hook.asked:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert await ours.receive_some() == b""


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
