"""Connections that end without a handshake: the peer vanishes, or our side is cancelled."""

from __future__ import annotations

import itertools
import logging
import socket
import struct
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

import trioroom
from trioroom._wire.frames import Close
from trioroom.testing import Peer, cancel_at_step, open_peer, open_test_server

if TYPE_CHECKING:
    from tests._net.conftest import EventsUntilTheEnd, Greet, Lobby

# -- the peer vanishes -----------------------------------------------------------------------------


def vanish(peer: Peer) -> None:
    """Reset the connection, as the kernel does for a process that dies with bytes unread."""
    assert isinstance(peer.stream, trio.SocketStream)
    peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.stream.socket.close()


@pytest.mark.parametrize("moment", ["reading", "before a send", "in a hook", "while the outbox waits", "closing"])
async def test_peer_that_vanishes_leaves_and_nobody_else_notices(
    lobby: Lobby, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    settings = trioroom.Settings(max_outbox_bytes=1 << 26)
    with trio.fail_after(10):
        async with open_test_server(lobby.app, settings, tcp=True) as server, open_peer(server, "/echo/b") as bystander:
            await bystander.send("hello")
            await bystander.receive()
            async with open_peer(server, "/echo/a", tcp=True) as peer:
                await peer.send("hello")
                await peer.receive()
                member = lobby.joined[-1]
                if moment == "in a hook":
                    lobby.held_hook = "on_message"
                    await peer.send("answer me")
                elif moment == "while the outbox waits":
                    for _ in range(200):
                        member.send("x" * 60_000)
                elif moment == "closing":
                    member.leave("enough")
                await wait_all_tasks_blocked()
                vanish(peer)
                if moment == "before a send":  # and before the reader has seen it
                    member.send("anyone there?")
                elif moment == "in a hook":
                    lobby.release.set()
                await lobby.someone_left.wait()
            await wait_all_tasks_blocked()
            assert server.connection_count == 1
            await bystander.send("unharmed")
            assert await bystander.receive() == "unharmed"
    assert lobby.left[0] == ("enough" if moment == "closing" else "connection lost")
    assert not caplog.records


@pytest.mark.parametrize("moment", ["reading", "before a send", "while the outbox waits"])
async def test_stream_that_breaks_is_a_peer_that_has_gone(lobby: Lobby, moment: str, greet: Greet) -> None:
    async with open_test_server(lobby.app) as server, trio.open_nursery() as nursery:
        ours, theirs = lockstep_stream_pair() if moment == "while the outbox waits" else memory_stream_pair()
        nursery.start_soon(server.serve_stream, theirs)
        await greet(ours)
        await wait_all_tasks_blocked()
        if moment == "while the outbox waits":
            lobby.joined[0].send("x")
            await wait_all_tasks_blocked()
        await trio.aclose_forcefully(ours)
        if moment == "before a send":
            lobby.joined[0].send("anyone there?")
        await lobby.someone_left.wait()
    assert lobby.left == ["connection lost"]


# -- cancellation ------------------------------------------------------------------------------------


class Served:
    """A peer whose server side can be cancelled by itself."""

    def __init__(self, server: trioroom.Server, stream: trio.abc.Stream) -> None:
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self._server = server
        self._stream = stream

    async def run(self) -> None:
        with self.scope:
            await self._server.serve_stream(self._stream)
        self.ended.set()


@pytest.mark.parametrize("moment", ["on_join", "on_message", "on_leave", "reading", "sending", "lingering", "closing"])
async def test_cancelled_anywhere_the_member_leaves_once_and_nothing_stays(
    lobby: Lobby, moment: str, greet: Greet, autojump_clock: MockClock
) -> None:
    lobby.held_hook = moment
    patience = {
        "on_leave": 1,
        "sending": 1,
    }  # leave_timeout; to read our close frame
    async with open_test_server(lobby.app) as server, trio.open_nursery() as nursery:
        ours, theirs = lockstep_stream_pair() if moment == "sending" else memory_stream_pair()
        served = Served(server, theirs)
        nursery.start_soon(served.run)
        peer = await greet(ours)
        if moment == "on_message":
            await peer.send("x")
        elif moment == "on_leave":
            await peer.close()
        elif moment == "lingering":
            await ours.send_all(b"\x83\x80\0\0\0\0")  # a reserved opcode
        await wait_all_tasks_blocked()
        if moment == "sending":
            lobby.joined[0].send("x")
        elif moment == "closing":
            lobby.joined[0].leave("enough")
        await wait_all_tasks_blocked()
        assert not served.ended.is_set()
        served.scope.cancel()
        await served.ended.wait()
        assert trio.current_time() == pytest.approx(patience.get(moment, 0))
        assert server.connection_count == 0
        await trio.aclose_forcefully(ours)
    assert len(lobby.joined) == len(lobby.left) == 1
    assert trio.current_time() <= 2  # nobody is left for the drain to wait for


async def test_cancelled_at_any_step_nothing_stays(autojump_clock: MockClock, make_lobby: type[Lobby]) -> None:
    cut_off = 0
    for step in itertools.count():
        lobby = make_lobby()
        async with open_test_server(lobby.app) as server:
            with cancel_at_step(step) as scope:
                async with open_peer(server, "/echo/a") as peer:
                    await peer.send("x")
                    await peer.receive()
                    await peer.close()
                    with pytest.raises(trioroom.ConnectionClosed):
                        await peer.receive()
            await wait_all_tasks_blocked()
            assert server.connection_count == 0, step
        assert len(lobby.joined) == len(lobby.left), step
        if not scope.cancelled_caught:
            break
        cut_off += 1
    assert cut_off > 10


async def test_stopping_server_closes_sockets_with_1001(
    lobby: Lobby, events_until_the_end: EventsUntilTheEnd, nursery: trio.Nursery
) -> None:
    async with trio.open_nursery() as inner:
        server = await inner.start(lambda task_status: trioroom.serve(lobby.app, port=0, task_status=task_status))
        peer = await nursery.start(hold_open, server)
        inner.cancel_scope.cancel()
    with trio.fail_after(5):
        assert await events_until_the_end(peer) == [Close(1001, "the server stops")]
    assert lobby.left == ["the server stops"]


async def hold_open(server: trioroom.Server, task_status: trio.TaskStatus[Peer]) -> None:
    async with open_peer(server, "/echo/a", tcp=True) as peer:
        await peer.send("x")
        await peer.receive()
        task_status.started(peer)
        await trio.sleep_forever()


async def test_cancelled_stream_is_closed_with_1001(
    lobby: Lobby, greet: Greet, events_until_the_end: EventsUntilTheEnd, autojump_clock: MockClock
) -> None:
    async with open_test_server(lobby.app) as server, trio.open_nursery() as nursery:
        ours, theirs = memory_stream_pair()
        served = Served(server, theirs)
        nursery.start_soon(served.run)
        peer = await greet(ours)
        await wait_all_tasks_blocked()
        served.scope.cancel()
        assert await events_until_the_end(peer) == [Close(1001, "the server stops")]  # see Server.serve_stream
        await served.ended.wait()
