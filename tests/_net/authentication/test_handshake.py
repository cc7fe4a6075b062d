"""Who may come in, and as whom: the app's ``authenticate`` in handshakes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

import trioroom
from tests._net.authentication.conftest import V1, Hook, Who, answer_to, greeted
from tests.conftest import logged_traceback
from trioroom.testing import open_peer, open_test_server, open_v1_peer

if TYPE_CHECKING:
    from tests._net.conftest import Greet, Upgrade


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
