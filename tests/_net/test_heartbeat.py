"""The heartbeat: who is asked when, and who is given up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import pytest
import trio
from trio.testing import MockClock

import trioroom
from trioroom._net.heartbeat import Heartbeat
from trioroom._wire.frames import Close, Opcode, Ping
from trioroom.testing import Peer, open_peer, open_test_server

if TYPE_CHECKING:
    from tests._net.conftest import Lobby
    from trioroom._net.connection import Connection

SETTINGS = trioroom.Settings(ping_interval=20, ping_timeout=5, close_timeout=1)


class Asked:
    """A connection, as far as the heartbeat looks at one: parked, and it answers at once."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.heard = True
        self.closing: Close | None = None
        self.transport = self
        self.parked = True
        self.pings: list[float] = []
        self.closed = False
        self.unread = False
        self.as_connection = cast("Connection", self)

    def ping(self) -> None:
        self.pings.append(trio.current_time())

    def has_unread(self) -> bool:
        return self.unread

    def close(self, code: int, reason: str = "") -> None:
        self.closed = True


async def next_ping(peer: Peer) -> float:
    """When it came."""
    event = await peer.receive_event()
    assert isinstance(event, Ping)
    return trio.current_time()


async def test_first_pings_are_spread_over_the_interval_and_then_keep_it(
    lobby: Lobby, autojump_clock: MockClock
) -> None:
    first: list[float] = []

    async def watch() -> None:
        async with open_peer(server, "/echo/a") as peer:
            asked = await next_ping(peer)
            first.append(asked - begin)
            await peer.send_frame(Opcode.PONG)
            assert await next_ping(peer) - asked == pytest.approx(20, abs=0.01)
            await peer.close()

    async with open_test_server(lobby.app, SETTINGS) as server:
        begin = trio.current_time()
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(watch)
    assert max(first) <= 20.1
    for quarter in range(4):  # none among 100 is a chance of 3 in 10^13
        assert any(5 * quarter <= moment < 5 * quarter + 5 for moment in first)


async def test_silent_peer_is_closed_after_the_timeout(lobby: Lobby, autojump_clock: MockClock) -> None:
    async with open_test_server(lobby.app, SETTINGS) as server, open_peer(server, "/echo/a") as peer:
        asked = await next_ping(peer)
        assert await peer.receive_event() == Close(4110, "no pong within 5 s; answer pings or reconnect")
        assert 5 <= trio.current_time() - asked <= 5.2
    assert lobby.left == ["no pong within 5 s; answer pings or reconnect"]


@pytest.mark.parametrize("sign", ["pong", "pong unasked", "message", "part of a frame", "ping"])
async def test_any_sign_of_life_is_enough(lobby: Lobby, sign: str, autojump_clock: MockClock) -> None:
    async with open_test_server(lobby.app, SETTINGS) as server, open_peer(server, "/echo/a") as peer:
        asked = await next_ping(peer)
        await trio.sleep(4.9)
        if sign == "part of a frame":
            await peer.stream.send_all(b"\x82")
        elif sign == "message":
            await peer.send("here")
            assert await peer.receive() == "here"
        elif sign == "ping":
            await peer.send_frame(Opcode.PING)
            await peer.receive_event()
        else:
            await peer.send_frame(Opcode.PONG, b"" if sign == "pong" else b"unasked")
        assert await next_ping(peer) == pytest.approx(asked + 20, abs=0.01)


async def test_busy_reader_is_not_judged_by_pongs_it_could_not_see(autojump_clock: MockClock) -> None:
    class Slow(trioroom.Room):
        async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
            await trio.sleep(100)
            member.send("done")

    app = trioroom.App()
    app.route("slow", Slow)
    async with open_test_server(app, SETTINGS) as server, open_peer(server, "/slow") as peer:
        begin = trio.current_time()
        await peer.send("go")
        assert await peer.receive_event() == trioroom.Message("done")  # no ping came before it
        assert trio.current_time() - begin == pytest.approx(100)
        await peer.close()


async def test_peer_that_has_gone_is_asked_no_more(autojump_clock: MockClock) -> None:
    heartbeat = Heartbeat(20, 5)
    connection, other = Asked("a"), Asked("b")
    heartbeat.add(connection.as_connection)
    heartbeat.add(other.as_connection)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat.run)
        await trio.sleep(20.05)  # one turn of the wheel, and half a slot
        heartbeat.remove(connection.as_connection)
        heartbeat.remove(connection.as_connection)  # twice is no error
        await trio.sleep(200)
        nursery.cancel_scope.cancel()
    assert len(connection.pings) == 1
    assert len(other.pings) == 11
    assert not connection.closed


async def test_closing_peer_is_not_asked(lobby: Lobby, autojump_clock: MockClock) -> None:
    settings = trioroom.Settings(ping_interval=20, ping_timeout=5, close_timeout=100)
    async with open_test_server(lobby.app, settings) as server, open_peer(server, "/echo/a") as peer:
        await peer.send("x")
        assert await peer.receive() == "x"
        lobby.joined[0].leave("enough")
        assert await peer.receive_event() == Close(1000, "enough")
        with trio.move_on_after(99) as nothing_more:
            await peer.receive_event()
        assert nothing_more.cancelled_caught


@pytest.mark.parametrize("timeout", [5, math.inf])
async def test_infinite_interval_asks_nobody(lobby: Lobby, timeout: float, autojump_clock: MockClock) -> None:
    settings = trioroom.Settings(ping_interval=math.inf, ping_timeout=timeout)
    opened = open_test_server(lobby.app, settings, timeout=math.inf)
    async with opened as server, open_peer(server, "/echo/a") as peer:
        with trio.move_on_after(1_000) as nothing:
            await peer.receive_event()
        assert nothing.cancelled_caught
        await peer.send("still open")
        assert await peer.receive() == "still open"
        await peer.close()


async def test_timeout_just_below_the_interval_judges_before_the_next_ping(
    lobby: Lobby, autojump_clock: MockClock
) -> None:
    settings = trioroom.Settings(ping_interval=10, ping_timeout=9.999, close_timeout=1)
    async with open_test_server(lobby.app, settings) as server, open_peer(server, "/echo/a") as peer:
        asked = await next_ping(peer)
        assert isinstance(await peer.receive_event(), Close)
        assert trio.current_time() - asked == pytest.approx(10, abs=0.05)


async def test_pong_that_the_server_has_not_come_to_read_is_a_sign_of_life(autojump_clock: MockClock) -> None:
    heartbeat = Heartbeat(20, 5)
    silent, unread = Asked("silent"), Asked("unread")
    silent.heard = unread.heard = False
    unread.unread = True
    for asked in (silent, unread):
        heartbeat.add(asked.as_connection)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat.run)
        await trio.sleep(26)
        nursery.cancel_scope.cancel()
    assert (silent.closed, unread.closed) == (True, False)


async def test_crowd_of_one_slot_is_asked_in_slices(autojump_clock: MockClock) -> None:
    heartbeat = Heartbeat(20, 5)
    begun = trio.Event()
    turns = 0
    seen: set[int] = set()

    class Counted(Asked):
        def ping(self) -> None:
            super().ping()
            begun.set()
            seen.add(turns)

    for _ in range(2_000):
        heartbeat.add(Counted("the same for all").as_connection)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat.run)
        await begun.wait()
        for turns in range(100):  # noqa: B007  # read by those who are asked
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert len(seen) >= 4
