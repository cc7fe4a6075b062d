"""A server that stops while it is used: who comes, joins and publishes then, who reads nothing, and who hurries it."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

import trioroom
from trioroom.testing import Peer, open_peer, open_test_server, open_v1_peer

if TYPE_CHECKING:
    from tests._net.conftest import Lobby, Upgrade

REASON = "the server drains; reconnect"
GET_READY = b"GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n"


async def parting_of(peer: Peer) -> list[object]:
    """What the server says until it closes, and its code; answered."""
    said: list[object] = []
    while True:
        try:
            said.append(await peer.receive())
        except trioroom.ConnectionClosed as exc:
            return [*said, exc.code]


async def ask_stream(server: trioroom.Server, request: bytes) -> bytes:
    """The answer to an HTTP request."""
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        await ours.send_all(request)
        answer = bytes(await ours.receive_some())  # all of it, in memory
        await ours.aclose()
    return answer


@asynccontextmanager
async def stopping(app: trioroom.App, settings: trioroom.Settings) -> AsyncIterator[tuple[trioroom.Server, trio.Event]]:
    """A server that begins to stop when the event is set, while the body goes on; at the end it has stopped."""
    begin = trio.Event()

    async def serve(task_status: trio.TaskStatus[trioroom.Server]) -> None:
        async with open_test_server(app, settings, tcp=True) as server:
            task_status.started(server)
            await begin.wait()

    async with trio.open_nursery() as nursery:
        yield await nursery.start(serve), begin
        begin.set()


# -- who comes meanwhile -------------------------------------------------------------------------------


async def test_server_is_not_ready_and_serves_all_the_same_until_drain_delay_is_over(
    lobby: Lobby, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    settings = trioroom.Settings(drain_delay=7, drain_timeout=10)
    async with stopping(lobby.app, settings) as (server, begin):
        assert (await ask_stream(server, GET_READY)).startswith(b"HTTP/1.1 200 ")
        begin.set()
        await trio.sleep(6)
        answer = await ask_stream(server, GET_READY)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"not ready: the server drains\n")
        assert b" 200 " in await ask_stream(server, GET_READY.replace(b"readyz", b"healthz"))
        socket.create_connection(("127.0.0.1", server.port)).close()
        async with open_peer(server, "/echo/a") as peer:
            await peer.send("late")
            assert await parting_of(peer) == ["late", 4101]
        assert trio.current_time() == pytest.approx(7)
    assert trio.current_time() == pytest.approx(7, abs=0.1)


async def test_who_waits_in_the_queue_of_the_listener_is_told(lobby: Lobby, upgrade: Upgrade) -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            async with open_test_server(lobby.app, tcp=True) as server:
                waiting = []
                for _ in range(20):  # no task runs in between
                    waiting.append(socket.create_connection(("127.0.0.1", server.port)))
                    waiting[-1].send(upgrade("/echo/a"))
                    waiting[-1].setblocking(False)

                async def hear(sock: socket.socket) -> None:
                    async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
                        answers.append(b"".join([data async for data in stream]))

                answers: list[bytes] = []
                for sock in waiting:
                    nursery.start_soon(hear, sock)
    assert [answer[:13] for answer in answers] == [b"HTTP/1.1 503 "] * 20
    assert all(b"\r\nRetry-After: 1\r\n" in answer for answer in answers)


async def test_answer_that_is_under_way_is_waited_for_when_nobody_is_connected(
    lobby: Lobby, autojump_clock: MockClock, upgrade: Upgrade
) -> None:
    async with stopping(lobby.app, trioroom.Settings()) as (server, begin), trio.open_nursery() as nursery:
        ours, theirs = memory_stream_pair()
        nursery.start_soon(server.serve_stream, theirs)
        await ours.send_all(GET_READY[:9])
        await wait_all_tasks_blocked()
        begin.set()
        await trio.sleep(0.5)
        await ours.send_all(GET_READY[9:])
        assert b"not ready: the server drains" in b"".join([data async for data in ours])
        await ours.aclose()


async def test_peer_that_asks_for_nothing_keeps_nobody_waiting(lobby: Lobby, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        async with open_test_server(lobby.app) as server:
            _ours, theirs = memory_stream_pair()
            nursery.start_soon(server.serve_stream, theirs)
            await wait_all_tasks_blocked()
        assert trio.current_time() == 0
        nursery.cancel_scope.cancel()


async def test_peer_that_is_let_in_as_draining_begins_is_closed_and_not_cut_off(
    lobby: Lobby, autojump_clock: MockClock, upgrade: Upgrade
) -> None:
    ours, theirs = memory_stream_pair()
    held = trio.Event()
    pump = theirs.send_stream.send_all_hook
    assert pump is not None

    async def hold() -> None:
        await held.wait()
        await pump()

    theirs.send_stream.send_all_hook = hold  # as for a peer that does not take the 101 at once
    async with stopping(lobby.app, trioroom.Settings()) as (server, begin), trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        await ours.send_all(upgrade("/echo/a"))
        await wait_all_tasks_blocked()
        begin.set()
        await wait_all_tasks_blocked()
        held.set()
        received = b"".join([data async for data in ours])
        await ours.aclose()
    assert received.startswith(b"HTTP/1.1 101 ")
    assert received.endswith((4101).to_bytes(2, "big") + REASON.encode())
    assert lobby.joined == []


# -- who is there ---------------------------------------------------------------------------------------


async def test_members_join_and_publish_until_they_are_closed(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    left: Counter[tuple[str, str]] = Counter()

    class Chat(trioroom.Room):
        async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
            await self.publish(message.data)

        async def on_leave(self, member: trioroom.Member, reason: str) -> None:
            left[self.name, member.id] += 1

    app = trioroom.App()
    app.route("chat/{name}", Chat)
    settings = trioroom.Settings(drain_timeout=10, close_timeout=1, reconnect_rate=1)  # one after the other
    heard: list[int] = []

    async def be_member(server: trioroom.Server, task_status: trio.TaskStatus[None]) -> None:
        async with open_v1_peer(server) as peer:
            await peer.join("chat/a")
            task_status.started()
            said: list[object] = []
            with suppress(trioroom.ConnectionClosed):
                while True:
                    await peer.send({"type": "join", "id": 2, "room": f"chat/{trio.current_time()}"})
                    await peer.send({"type": "publish", "room": "chat/a", "data": 1})
                    with trio.move_on_after(0.2137):  # at no moment at which one may be closed
                        while True:
                            said.append(await peer.peer.receive())
            messages = sum('"type":"message"' in str(each) for each in said)
            heard.append(messages)

    async with open_test_server(app, settings) as server:
        for _ in range(8):
            await nursery.start(be_member, server)
    assert trio.current_time() == pytest.approx(8, abs=1)
    assert max(heard) > 30  # whoever was closed last went on for 7 seconds
    assert set(left.values()) == {1}
    assert len(left) > 8


async def test_peers_that_read_nothing_hold_up_neither_the_others_nor_the_end(
    nursery: trio.Nursery, autojump_clock: MockClock, upgrade: Upgrade
) -> None:
    left: Counter[str] = Counter()

    class Chatty(trioroom.Room):
        async def on_join(self, member: trioroom.Member) -> None:
            for _ in range(99):  # with the answer that is all that may wait: there is no place for a bye
                member.send("x")

        async def on_leave(self, member: trioroom.Member, reason: str) -> None:
            assert reason == REASON
            left[member.id] += 1

    app = trioroom.App()
    app.route("chatty/{name}", Chatty)
    settings = trioroom.Settings(
        drain_timeout=10, close_timeout=4, leave_timeout=1, reconnect_rate=10, max_outbox_messages=100
    )
    codes: list[tuple[object, float]] = []

    async def be_reader(server: trioroom.Server, task_status: trio.TaskStatus[None]) -> None:
        async with open_peer(server, "/chatty/a") as peer:
            task_status.started()
            codes.append(((await parting_of(peer))[-1], trio.current_time()))

    async def stall(server: trioroom.Server, task_status: trio.TaskStatus[None]) -> None:
        ours, theirs = lockstep_stream_pair()  # which holds nothing between its ends
        nursery.start_soon(server.serve_stream, theirs)
        await ours.send_all(upgrade("/", ("Sec-WebSocket-Protocol: trioroom.v1.json",)))
        peer = Peer(ours)
        while b"\r\n\r\n" not in peer.head:
            peer.head += bytes(await ours.receive_some(1))
        assert (await peer.receive_json())["type"] == "hello"
        await peer.send_json({"type": "join", "id": 1, "room": "chatty/a"})
        await wait_all_tasks_blocked()
        task_status.started()
        await trio.sleep(60)
        await ours.aclose()

    async with open_test_server(app, settings) as server:
        for number in range(40):
            await nursery.start(stall if number % 4 == 0 else be_reader, server)
    assert trio.current_time() <= 10.1
    assert [code for code, _ in codes] == [4101] * 30
    assert max(at for _, at in codes) <= 6.1  # the last ones are closed when close_timeout is left
    assert len(left) == 40
    assert set(left.values()) == {1}


# -- who hurries it -------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.0, 1.0, 4.0], ids=["at once", "amid drain_delay", "amid the pace"])
async def test_cancelled_drain_ends_at_once_and_everybody_leaves_once(
    lobby: Lobby, autojump_clock: MockClock, after: float
) -> None:
    settings = trioroom.Settings(drain_delay=2, drain_timeout=600, close_timeout=600, reconnect_rate=10)
    partings: Counter[object] = Counter()

    async def be_peer(server: trioroom.Server, task_status: trio.TaskStatus[None]) -> None:
        async with open_peer(server, "/echo/a") as peer:
            task_status.started()
            partings[(await parting_of(peer))[-1]] += 1

    async def serve(task_status: trio.TaskStatus[trioroom.Server]) -> None:
        with hurry:
            async with open_test_server(lobby.app, settings) as server:
                task_status.started(server)
                await begin.wait()

    hurry, begin = trio.CancelScope(), trio.Event()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve)
        for _ in range(50):
            await nursery.start(partial(be_peer, server))
        begin.set()
        await trio.sleep(after)
        hurry.cancel()
    assert trio.current_time() == after
    assert len(lobby.left) == 50
    assert partings[4101] == pytest.approx(max(0, after - 2) * 10, abs=1)
    assert partings.total() == partings[4101] + partings[1001] == 50
