"""Hooks for a member, and its tasks, that raise: logged with a traceback, 1011 for whom it concerns."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import (
    MockClock,
    lockstep_stream_one_way_pair,
    memory_stream_one_way_pair,
    wait_all_tasks_blocked,
)

import trioroom
from tests.conftest import app_of, close_code, logged_traceback
from trioroom.testing import Peer, open_peer, open_test_server, open_v1_peer
from trioroom.testing.peer import _shake_hands


class Broken(trioroom.Room):
    """Each hook is broken for those who ask for it, by the query or a message."""

    async def authorize(self, member: trioroom.Member) -> None:
        fail_if("authorize", member.request.query)

    async def on_join(self, member: trioroom.Member) -> object:
        fail_if("on_join", member.request.query)
        return None

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        fail_if("on_message", message.data)
        if message.data == "member task":
            member.start_soon(self.crash)
        elif message.data == "unserialisable":
            member.send(object())  # type: ignore[arg-type]  # the mistake under test
        else:
            await super().on_message(member, message)

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        fail_if("on_call", message.data)
        return object() if message.data == "unserialisable" else message.data

    async def crash(self) -> None:
        fail_if("crash", "crash")

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        fail_if("on_leave", member.request.query)


def fail_if(hook: str, asked: object) -> None:
    if asked == hook:
        raise ValueError(f"{hook} is broken")


@pytest.mark.parametrize(
    ("query", "message", "error"),
    [
        ("?authorize", None, "ValueError: authorize is broken"),
        ("?on_join", None, "ValueError: on_join is broken"),
        ("", "on_message", "ValueError: on_message is broken"),
        ("", "member task", "ValueError: crash is broken"),
        ("", "unserialisable", "TypeError: Encoding objects of type object is unsupported"),
    ],
)
async def test_failure_ends_the_plain_connection_and_no_other(
    query: str, message: str | None, error: str, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_test_server(app_of(Broken)) as server, open_peer(server, "/room/a") as other:
        async with open_peer(server, f"/room/a{query}") as peer:
            if message is not None:
                await peer.send(message)
            assert await close_code(peer) == 1011
        assert logged_traceback(caplog, error)
        async with open_peer(server, "/room/a") as peer:
            await peer.send("the room lives")
            assert await other.receive() == "the room lives"


@pytest.mark.parametrize(
    ("query", "request_type", "data", "error"),
    [
        ("?authorize", "join", None, "ValueError: authorize is broken"),
        ("?on_join", "join", None, "ValueError: on_join is broken"),
        ("", "publish", "on_message", "ValueError: on_message is broken"),
        ("", "call", "on_call", "ValueError: on_call is broken"),
        ("", "call", "unserialisable", "TypeError: Encoding objects of type object is unsupported"),
    ],
)
async def test_failure_ends_the_v1_connection_and_no_other(
    query: str,
    request_type: str,
    data: str | None,
    error: str,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: MockClock,
) -> None:
    async with open_test_server(app_of(Broken)) as server, open_v1_peer(server) as other:
        await other.join("room/a")
        async with open_v1_peer(server, f"/{query}") as v1:
            if request_type != "join":
                await v1.join("room/a")
            await v1.send({"type": request_type, "id": 1, "room": "room/a", "data": data})
            assert await close_code(v1.peer) == 1011
        assert logged_traceback(caplog, error)
        assert (await other.request("call", room="room/a", data="the room lives"))["data"] == "the room lives"


async def test_on_leave_that_fails_ends_the_connection_and_frees_the_place(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_test_server(app_of(Broken)) as server, open_v1_peer(server, "/?on_leave") as v1:
        await v1.join("room/a")
        await v1.send({"type": "leave", "id": 1, "room": "room/a"})
        assert await close_code(v1.peer) == 1011
        assert logged_traceback(caplog, "ValueError: on_leave is broken")
        async with open_peer(server, "/room/a") as one, open_peer(server, "/room/a") as two:
            await one.send("the name is free")
            assert await two.receive() == "the name is free"


async def test_on_leave_is_cut_off_after_leave_timeout(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    cut: list[float] = []

    class Dawdling(trioroom.Room):
        async def on_leave(self, member: trioroom.Member, reason: str) -> None:
            started = trio.current_time()
            try:
                await trio.sleep_forever()
            finally:
                cut.append(trio.current_time() - started)

    async with open_test_server(app_of(Dawdling), trioroom.Settings(leave_timeout=7)) as server:
        async with open_v1_peer(server) as v1:
            await v1.join("room/a")
            assert (await v1.request("leave", room="room/a"))["type"] == "ok"
    assert cut == [pytest.approx(7)]
    assert "on_leave cut off after leave_timeout=7 s" in caplog.text


async def test_member_task_that_refuses_to_end_holds_up_on_leave_for_leave_timeout_only(
    autojump_clock: MockClock,
) -> None:
    left: list[float] = []

    class Stubborn(trioroom.Room):
        async def on_join(self, member: trioroom.Member) -> object:
            member.start_soon(self.refuse_to_end)
            return None

        async def refuse_to_end(self) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(100)

        async def on_leave(self, member: trioroom.Member, reason: str) -> None:
            left.append(trio.current_time())

    async with open_test_server(app_of(Stubborn), trioroom.Settings(leave_timeout=7)) as server:
        start = trio.current_time()
        async with open_v1_peer(server) as v1:
            await v1.join("room/a")
            assert (await v1.request("leave", room="room/a"))["type"] == "ok"
    assert left == [pytest.approx(start + 7)]


# -- failures together with a cancellation ---------------------------------------------------------


async def fail_when_cancelled() -> None:
    """As code with a nursery does that is cancelled: one child is cancelled, another one breaks over it."""

    async def break_over_it() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("broke when cancelled")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(break_over_it)
        nursery.start_soon(trio.sleep_forever)


class Fragile(trioroom.Room):
    async def on_join(self, member: trioroom.Member) -> object:
        if member.request.query == "on_join":
            await fail_when_cancelled()
        return None

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        if message.data == "on_message":
            await fail_when_cancelled()
        elif message.data == "member task":
            member.start_soon(fail_when_cancelled)

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        await fail_when_cancelled()
        return None

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        if member.request.query == "on_leave":
            await fail_when_cancelled()


@asynccontextmanager
async def open_deaf_peer(server: trioroom.Server, path: str) -> AsyncIterator[Peer]:
    """It reads nothing after the handshake, and the way to it holds nothing either."""
    up, server_reads = memory_stream_one_way_pair()
    server_writes, down = lockstep_stream_one_way_pair()
    ours, theirs = trio.StapledStream(up, down), trio.StapledStream(server_writes, server_reads)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        peer = Peer(ours)
        await _shake_hands(peer, path, None)
        yield peer
        await trio.aclose_forcefully(ours)


@pytest.mark.parametrize("where", ["on_join", "on_message", "member task", "on_leave"])
async def test_failure_inside_of_a_cancellation_leaves_the_server_up(
    where: str, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    settings = trioroom.Settings(max_outbox_messages=10, close_timeout=1, leave_timeout=1)
    app = app_of(Fragile)
    async with open_test_server(app, settings) as server:
        async with open_deaf_peer(server, "/room/a?" + where.replace(" ", "")) as peer:
            await peer.send(where)
            await wait_all_tasks_blocked()
            for _ in range(30):  # a slow consumer is closed, and cancelled when close_timeout is over
                await app.publish("room/a", "x")
        assert logged_traceback(caplog, "ValueError: broke when cancelled")
        async with open_v1_peer(server) as v1:
            await v1.join("room/a")


@pytest.mark.parametrize("end", ["cancel", "leave"])
async def test_call_that_fails_inside_of_its_cancellation_leaves_the_server_up(
    end: str, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_test_server(app_of(Fragile)) as server:
        async with open_v1_peer(server) as v1:
            await v1.join("room/a")
            await v1.send({"type": "call", "id": "c", "room": "room/a", "data": None})
            await v1.send({"type": end, "id": "c" if end == "cancel" else 1, "room": "room/a"})
            assert await close_code(v1.peer) == 1011
        assert logged_traceback(caplog, "ValueError: broke when cancelled")
        async with open_v1_peer(server) as v1:
            await v1.join("room/a")
