"""Clients of servers that want to know who they are: first tokens, fresh ones, and those that are refused."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from tests.client.conftest import Codec, make_app, open_app, open_script, wait_state
from trioroom._wire.envelopes import Auth
from trioroom.client import Message, Rejoined

LIFE = 60.0


class Issuer:
    """Makes tokens that are good for a while, and says whose they are."""

    def __init__(self) -> None:
        self.made = 0
        self.life = LIFE
        self.failures: list[Exception] = []
        self.is_away = False

    async def token(self) -> str:
        """For clients."""
        await trio.sleep(0.1)
        if self.failures:
            raise self.failures.pop()
        self.made += 1
        return f"ann {trio.current_time() + self.life}"

    async def authenticate(self, credentials: trioroom.Credentials) -> trioroom.Identity:
        """For the server."""
        await trio.lowlevel.checkpoint()
        if self.is_away and credentials.token:
            raise trioroom.AuthenticationUnavailable("the issuer is away")
        user, _, end = (credentials.token or "").partition(" ")
        if not user or (end and float(end) < trio.current_time()):
            raise trioroom.AuthenticationRefused("nobody I know")
        return trioroom.Identity(user, expires_at=time.time() + float(end) - trio.current_time() if end else None)

    def app(self) -> trioroom.App:
        app = make_app()
        app._authenticate = self.authenticate
        return app


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


async def test_token_is_renewed_before_it_expires_and_the_rooms_stay(
    issuer: Issuer, codec: Codec, autojump_clock: MockClock
) -> None:
    async with open_app(issuer.app()) as line, line.open_client(issuer.token, codec) as client:
        async with client.join("chat/a") as room:
            for number in range(10):
                await trio.sleep(LIFE / 2)
                await room.call(number)
            assert line.dials == 1
            assert 5 <= issuer.made <= 8  # in 300 s, after 48 to 54 of 60


async def test_token_that_is_not_renewed_in_time_brings_the_client_back_at_once_with_another(
    issuer: Issuer, autojump_clock: MockClock
) -> None:
    issuer.life = 8.0  # too short to be renewed
    async with open_app(issuer.app()) as line, line.open_client(issuer.token) as client:
        async with client.join("news/a") as room:
            events = room.events()
            await room.publish("one")
            await trio.sleep(7)
            waiting = await wait_state(client, "waiting")
            assert waiting.error.code == 4201
            assert waiting.after <= 0.05
            assert await wait_state(client, "open")
            await room.publish("two")
            seen = [await anext(events) for _ in range(2)]
            assert [type(event) for event in seen if not isinstance(event, Message)] == [Rejoined]
            assert (line.dials, issuer.made) == (2, 2)


async def test_token_that_expires_and_stays_so_closes_the_client(issuer: Issuer, autojump_clock: MockClock) -> None:
    token = f"ann {trio.current_time() + LIFE}"
    async with open_app(issuer.app()) as line, line.open_client(token) as client, client.join("chat/a"):
        closed = await wait_state(client, "closed")
        assert (closed.error.code, closed.error.message) == ("unauthenticated", "nobody I know")
        assert trio.current_time() == pytest.approx(LIFE, abs=1)
        assert line.dials == 2


@pytest.mark.parametrize("token", ["", " 1"])
async def test_token_that_is_refused_closes_the_client(issuer: Issuer, token: str, autojump_clock: MockClock) -> None:
    async with open_app(issuer.app()) as line, line.open_client(token) as client:
        with pytest.raises(trioroom.RequestRefused, match="nobody I know") as refused:
            async with client.join("chat/a"):
                pass
        assert (refused.value.code, refused.value.retry) == ("unauthenticated", False)
        assert client.state.name == "closed"
        assert line.dials == 1


async def test_tokens_are_in_no_log_and_no_error(
    issuer: Issuer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_app(issuer.app()) as line:
        async with line.open_client("s3cret") as client, client.join("chat/a"):
            with pytest.raises(trioroom.RequestRefused) as refused:
                await client.authenticate("other-s3cret")
        async with line.open_client("s3cret -1") as client:
            closed = await wait_state(client, "closed")
    assert caplog.records
    assert "s3cret" not in f"{caplog.text} {refused.value} {closed} {Auth(1, 's3cret')}"


async def test_client_without_a_token_is_closed_by_the_server(issuer: Issuer, autojump_clock: MockClock) -> None:
    async with open_app(issuer.app()) as line, line.open_client() as client:
        with pytest.raises(trioroom.RequestRefused, match="send auth first"):
            async with client.join("chat/a"):
                pass
        closed = await wait_state(client, "closed")
        assert (closed.error.code, closed.error.retry) == (4003, False)
        assert line.dials == 1


async def test_server_that_cannot_tell_now_is_tried_again(issuer: Issuer, autojump_clock: MockClock) -> None:
    issuer.is_away = True
    async with open_app(issuer.app()) as line, line.open_client(issuer.token) as client:
        waiting = await wait_state(client, "waiting")
        assert (waiting.error.code, waiting.error.retry) == ("failed", True)
        await trio.sleep(20)
        assert line.dials > 2
        issuer.is_away = False
        async with client.join("chat/a"):
            pass


async def test_failure_to_bring_a_fresh_token_is_tried_again(
    issuer: Issuer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.life = 200.0
    async with open_app(issuer.app()) as line, line.open_client(issuer.token) as client, client.join("chat/a"):
        issuer.life, issuer.failures = 1_000.0, [OSError("no network")]
        await trio.sleep(250)
        assert (line.dials, issuer.made) == (1, 2)
        assert "the function that brings the token failed; trying again in 10 s" in caplog.text


async def test_fresh_token_is_shown_again_when_nobody_could_tell(
    issuer: Issuer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.life = 200.0
    async with open_app(issuer.app()) as line, line.open_client(issuer.token) as client, client.join("chat/a"):
        issuer.is_away = True
        await trio.sleep(181)
        issuer.is_away = False
        issuer.life = 1_000.0
        await trio.sleep(100)
        assert line.dials == 1
        assert "the server does not take the fresh token: failed" in caplog.text


async def test_token_of_somebody_else_leaves_things_as_they_are(issuer: Issuer, autojump_clock: MockClock) -> None:
    async with open_app(issuer.app()) as line, line.open_client("ann") as client, client.join("chat/a") as room:
        with pytest.raises(trioroom.RequestRefused) as refused:
            await client.authenticate("bob")
        assert refused.value.code == "other_user"
        line.cut()
        await wait_all_tasks_blocked()
        assert await room.call(1) == [1, "ann"]


async def test_another_function_may_bring_the_tokens(issuer: Issuer, autojump_clock: MockClock) -> None:
    def tokens(name: str) -> Callable[[], str]:
        numbers = itertools.count(1)
        return lambda: f"{name}{next(numbers)}"

    async with open_app() as line, line.open_client(tokens("a")) as client, client.join("chat/a") as room:
        await client.authenticate(tokens("b"))
        line.cut()
        await wait_all_tasks_blocked()
        await room.call(1)
        async with client.join("chat/b") as another:
            assert await another.call(1) == [1, "b2"]


@pytest.mark.parametrize(
    ("expires_in", "least", "most"), [(20.0, 16, 18), (11.0, 10, 10), (10.0, None, None), (None, None, None)]
)
async def test_fresh_token_comes_when_most_of_the_time_is_spent(
    expires_in: float | None, least: float | None, most: float, autojump_clock: MockClock
) -> None:
    tokens = iter(["one", "two"])
    async with open_script(ping_interval=1_000.0) as (script, line), line.open_client(lambda: next(tokens)):
        peer = await script.accept()
        assert await peer.hear() == {"type": "auth", "id": 1, "token": "one"}
        await peer.say({"type": "ok", "id": 1, "expires_in": expires_in})
        begin = trio.current_time()
        with trio.move_on_after(500) as scope:
            assert await peer.hear() == {"type": "auth", "id": 2, "token": "two"}
            assert least is not None
            assert least <= trio.current_time() - begin <= most + 0.01
        assert scope.cancelled_caught is (least is None)
