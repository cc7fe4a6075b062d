"""The client goes on over its connections: states, tokens, codes, and how it ends."""

from __future__ import annotations

import itertools
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from tests.client.conftest import (
    Codec,
    Line,
    Script,
    make_app,
    open_app,
    open_line,
    open_script,
    wait_closed,
    wait_state,
)
from trioroom.client import Backoff, ClientState
from trioroom.testing import cancel_at_step


async def test_states_follow_the_connection_and_tell_why(autojump_clock: MockClock) -> None:
    async with open_script() as (script, line), line.open_client() as client:
        states = client.states()
        assert await anext(states) == ClientState("connecting")
        peer = await script.accept()
        assert await anext(states) == ClientState("open")
        line.server = None
        await peer.close(4101, "the server drains")
        waiting = await anext(states)
        assert (waiting.name, waiting.error.code, waiting.error.reason) == ("waiting", 4101, "the server drains")
        assert 0.05 <= waiting.after <= 0.5
        async for refused in states:
            if refused.name == "waiting":
                break
        assert isinstance(refused.error, ConnectionRefusedError)
        line.server = script
        await script.accept()
        assert await wait_state(client, "open") == ClientState("open")
    assert client.state == ClientState("closed")
    assert [state.name async for state in states][-1] == "closed"


async def test_entering_does_not_wait_and_join_does(autojump_clock: MockClock) -> None:
    async with open_line(None) as line, line.open_client() as client:
        with trio.move_on_after(60) as deadline:
            await client.join("chat/a").__aenter__()
        assert deadline.cancelled_caught
        assert line.dials > 5
        async with open_app() as served:
            line.server = served.server
            async with client.join("chat/a") as room:
                assert room.state == {"topic": "tea"}


@pytest.mark.parametrize("code", [1000, 1003, 1008, 1009, 4000, 4005, 4099])
async def test_codes_that_say_so_close_the_client_with_the_error(code: int, autojump_clock: MockClock) -> None:
    async with open_script() as (script, line), line.open_client() as client:
        peer = await script.accept()
        await peer.close(code, "go away")
        closed = await wait_state(client, "closed")
        assert (closed.error.code, closed.error.reason, closed.error.by_peer) == (code, "go away", True)
        for use in (client.wait_open, lambda: client.authenticate("x"), client.join("chat/a").__aenter__):
            with pytest.raises(trioroom.ConnectionClosed, match="go away") as raised:
                await use()
            assert raised.value is not closed.error
            assert raised.value.__cause__ is closed.error
        assert line.dials == 1


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 4100, 4108, 4110, 4113, 4200])
async def test_other_codes_bring_it_back(code: int, autojump_clock: MockClock) -> None:
    async with open_script() as (script, line), line.open_client() as client:
        await (await script.accept()).close(code)
        lost_at = trio.current_time()
        await script.accept()
        await client.wait_open()
        assert trio.current_time() - lost_at <= (0.05 if code == 4200 else 0.5)


async def test_bye_says_when_to_come_back(autojump_clock: MockClock) -> None:
    async with open_script() as (script, line), line.open_client() as client:
        peer = await script.accept()
        await client.wait_open()
        await peer.say({"type": "bye", "code": 4101, "after": [7.0, 9.0]})
        await peer.close(4101)
        lost_at = trio.current_time()
        await script.accept()
        assert 7.0 <= trio.current_time() - lost_at <= 9.1


async def test_server_that_says_nonsense_closes_the_client(autojump_clock: MockClock) -> None:
    async with open_script() as (script, line), line.open_client() as client:
        peer = await script.accept(hello=False)
        await peer.say({"type": "bye", "code": 1, "after": [0, 0]})
        closed = await wait_state(client, "closed")
        assert isinstance(closed.error, trioroom.RemoteProtocolError)
    async with open_script() as (script, line), line.open_client() as client:
        peer = await script.accept()
        await peer.ws.send_message("{")
        closed = await wait_state(client, "closed")
        assert closed.error.close_code == 4000


async def test_silent_server_is_given_up_after_connect_timeout(autojump_clock: MockClock) -> None:
    async with open_script() as (script, line), line.open_client(connect_timeout=3.0) as client:
        await script.accept(hello=False)
        waiting = await wait_state(client, "waiting")
        assert isinstance(waiting.error, TimeoutError)
        assert "connect_timeout=3 s" in str(waiting.error)
        assert trio.current_time() == pytest.approx(3.0, abs=0.1)


async def test_token_is_brought_for_each_connection(autojump_clock: MockClock, codec: Codec) -> None:
    numbers = itertools.count(1)

    async def token() -> str:
        await trio.sleep(0.1)
        return f"t{next(numbers)}"

    async with open_app() as line, line.open_client(token, codec) as client, client.join("chat/a") as room:
        assert await room.call("who?") == ["who?", "t1"]
        line.cut()
        await wait_all_tasks_blocked()
        assert await room.call("and now?") == ["and now?", "t2"]
        await client.authenticate("t9")
        line.cut()
        await wait_all_tasks_blocked()
        assert await room.call("?") == ["?", "t1"] or next(numbers) == 3


async def test_token_that_cannot_be_brought_is_tried_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [OSError("no network"), ValueError("bad answer")]

    def token() -> str | None:
        if failures:
            raise failures.pop()
        return None

    async with open_app() as line, line.open_client(token) as client:
        assert "bad answer" in str((await wait_state(client, "waiting")).error)
        await client.wait_open()
        assert line.dials == 1
    assert "the function that brings the token failed" in caplog.text


async def test_authenticating_counts_for_joins_from_then_on(autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client("guess") as client:
        with pytest.raises(trioroom.RequestRefused) as refused:
            async with client.join("private/a"):
                pass
        assert (refused.value.code, refused.value.retry) == ("denied", False)
        await client.authenticate("t0k3n")
        async with client.join("private/a") as room:
            line.cut()
            await wait_all_tasks_blocked()
            assert await room.call(1) == [1, "t0k3n"]


async def test_leaving_closes_with_1000_also_when_cancelled_or_failing(autojump_clock: MockClock) -> None:
    codes: list[int] = []

    async def serve(script: Script) -> None:
        codes.append(await wait_closed(await script.accept()))

    async def use(how: str) -> None:
        async with open_script() as (script, line):
            line.nursery.start_soon(serve, script)
            with trio.CancelScope() as scope, suppress(LookupError):
                async with line.open_client() as client:
                    await client.wait_open()
                    if how == "fail":
                        raise LookupError("the body's own")
                    if how == "cancel":
                        scope.cancel()
                        await trio.sleep_forever()

    await use("leave")
    await use("cancel")
    await use("fail")
    assert codes == [1000, 1000, 1000]


@pytest.mark.parametrize("state", ["open", "waiting"])
async def test_error_of_the_body_is_not_lost_to_a_cancellation(state: str, autojump_clock: MockClock) -> None:
    async def fail(line: Line) -> None:
        async with line.open_client() as client:
            await wait_state(client, state)
            scope.cancel()
            raise LookupError("as it is")

    async with open_app() as line:
        if state == "waiting":
            line.server = None
        with trio.CancelScope() as scope, pytest.raises(LookupError):
            await fail(line)


async def test_message_larger_than_the_client_takes_closes_it(autojump_clock: MockClock) -> None:
    app = make_app()
    async with open_app(app) as line, line.open_client(max_message_bytes=1000) as client, client.join("news/a") as room:
        await app.publish("news/a", "x" * 2000)
        with pytest.raises(trioroom.ConnectionClosed, match="max_message_bytes=1000 of this client") as closed:
            await anext(room)
        assert (closed.value.code, closed.value.by_peer) == (1009, False)
        assert line.dials == 1


async def test_closed_client_is_closed(autojump_clock: MockClock) -> None:
    async with open_app() as line:
        async with line.open_client() as client:
            await client.wait_open()
    with pytest.raises(trio.ClosedResourceError):
        await client.wait_open()


async def test_server_that_does_not_close_holds_nobody_up(autojump_clock: MockClock) -> None:
    async with open_script() as (script, line):
        async with line.open_client() as client:
            peer = await script.accept()
            await client.wait_open()
            peer.ws._reader_running = False  # it reads no more
            left_at = trio.current_time()
        assert trio.current_time() - left_at <= 2.1


async def test_cancelled_at_any_moment_nothing_is_left(autojump_clock: MockClock) -> None:
    """Connecting, joining, publishing, leaving and closing: the room is empty again whenever that is cut short."""
    async with open_app() as line:
        server = line.server
        assert isinstance(server, trioroom.Server)
        for step in itertools.count():
            with cancel_at_step(step) as scope:
                async with line.open_client() as client, client.join("news/a") as room:
                    await room.publish("x")
                    await room.call("y")
                    await room.history()
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(3)
            assert (server.connection_count, server.statistics().rooms) == (0, 0), step
            if not scope.cancelled_caught:
                break
        assert step > 50


async def test_rooms_are_joined_together_behind_auth_in_frames_the_server_takes(autojump_clock: MockClock) -> None:
    async with open_script(max_message_bytes=200) as (script, line), line.open_client("t") as client:
        async with trio.open_nursery() as nursery:
            for name in ("a", "b", "c", "d"):
                nursery.start_soon(client.join(f"chat/{name}").__aenter__)
            await trio.testing.wait_all_tasks_blocked()
            peer = await script.accept()
            heard: list[dict[str, object]] = []
            while len(heard) < 5:
                frame = await peer.hear()
                heard += frame if isinstance(frame, list) else [frame]
                assert len(str(frame)) < 250
            assert [request["type"] for request in heard] == ["auth", *["join"] * 4]
            assert [request["id"] for request in heard] == [1, 2, 3, 4, 5]
            nursery.cancel_scope.cancel()


async def test_back_off_is_the_applications_choice(autojump_clock: MockClock) -> None:
    async with open_line(None) as line, line.open_client(backoff=Backoff(first=0.05, most=0.05)):
        await trio.sleep(1)
        assert line.dials >= 15


async def test_being_in_a_room_twice_is_an_error() -> None:
    async with open_app() as line, line.open_client() as client, client.join("chat/a"):
        with pytest.raises(RuntimeError, match="in room 'chat/a' already"):
            async with client.join("chat/a"):
                pass
