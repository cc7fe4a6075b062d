"""A peer that reads slowly or not at all: what it costs, what it is told, and that no frame is torn."""

from __future__ import annotations

import math
import tracemalloc
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from trioroom import Message
from trioroom._wire.client_frames import encode_masked
from trioroom._wire.frames import Close, Event, Opcode, Pong
from trioroom.testing import open_peer, open_test_server

if TYPE_CHECKING:
    from tests._net.conftest import EventsUntilTheEnd, Lobby, OpenPeer

SETTINGS = trioroom.Settings(
    max_outbox_bytes=10_000, max_outbox_messages=20, close_timeout=3, leave_timeout=1, ping_interval=math.inf
)
PART = 60_000  # bytes of a message, so that the kernel's buffers end inside of one


@pytest.mark.parametrize(("size", "queued"), [(996, 10), (1, 20)])
async def test_slow_consumer_is_told_how_much_waited_for_how_long(
    lobby: Lobby,
    open_narrow_peer: OpenPeer,
    events_until_the_end: EventsUntilTheEnd,
    autojump_clock: MockClock,
    size: int,
    queued: int,
) -> None:
    async with open_test_server(lobby.app, SETTINGS) as server, open_narrow_peer(server) as peer:
        await wait_all_tasks_blocked()
        (member,) = lobby.joined
        member.send("first")  # its writer waits for the peer; what follows waits for the writer
        await trio.sleep(2)
        for _ in range(queued):
            member.send("x" * size)
        await wait_all_tasks_blocked()
        assert server.connection_count == 1
        member.send("one too many")
        member.send("too late")
        frame_bytes = size + (4 if size > 125 else 2)
        assert await events_until_the_end(peer) == [
            Message("first"),  # was on its way
            Close(
                4108,
                f"slow consumer: {queued} messages, {queued * frame_bytes} bytes queued for 2.0 s; "
                "read faster or ask for less",
            ),
        ]
    assert len(lobby.left) == 1
    assert lobby.left[0].startswith("slow consumer: ")


async def test_peer_that_never_reads_is_gone_after_the_close_timeout(
    lobby: Lobby, open_narrow_peer: OpenPeer, autojump_clock: MockClock
) -> None:
    async with open_test_server(lobby.app, SETTINGS) as server, open_narrow_peer(server):
        await wait_all_tasks_blocked()
        lobby.joined[0].send("x")
        await wait_all_tasks_blocked()
        for _ in range(21):
            lobby.joined[0].send("x")
        await lobby.someone_left.wait()
        assert trio.current_time() == 3
        await wait_all_tasks_blocked()
        assert server.connection_count == 0
    assert len(lobby.left) == 1


async def test_torn_frame_is_finished_and_nothing_but_the_close_frame_follows(
    lobby: Lobby, events_until_the_end: EventsUntilTheEnd
) -> None:
    async with open_test_server(lobby.app, tcp=True) as server, open_peer(server, "/echo/a", tcp=True) as peer:
        await peer.send("hello")
        await peer.receive()
        (member,) = lobby.joined
        for number in range(400):  # 24 MB: more than kernel and outbox hold
            member.send(number.to_bytes(2, "big") * (PART // 2))
        with trio.fail_after(10):
            messages: list[Event] = []
            while not isinstance(event := await peer.receive_event(), Close):
                messages.append(event)
            assert event.code == 4108
            await peer.close(4108)
            assert await events_until_the_end(peer) == []
        assert 0 < len(messages) < 400
        assert messages == [Message(number.to_bytes(2, "big") * (PART // 2)) for number in range(len(messages))]


async def test_peer_that_catches_up_gets_all_in_order(lobby: Lobby) -> None:
    settings = trioroom.Settings(max_outbox_bytes=1 << 26, close_timeout=1)
    async with (
        open_test_server(lobby.app, settings, tcp=True) as server,
        open_peer(server, "/echo/a", tcp=True) as peer,
    ):
        await peer.send("hello")
        await peer.receive()
        (member,) = lobby.joined
        with trio.fail_after(20):
            for turn in range(2):  # from the kernel to the outbox, back to the kernel, and once more
                for number in range(200):
                    member.send(bytes([turn, number]) * (PART // 2))
                for number in range(200):
                    assert await peer.receive() == bytes([turn, number]) * (PART // 2)
        await peer.send("still here")
        assert await peer.receive() == "still here"


async def test_close_waits_behind_what_was_sent_before_it(
    lobby: Lobby, open_narrow_peer: OpenPeer, events_until_the_end: EventsUntilTheEnd, autojump_clock: MockClock
) -> None:
    async with open_test_server(lobby.app, SETTINGS) as server, open_narrow_peer(server) as peer:
        await wait_all_tasks_blocked()
        (member,) = lobby.joined
        for number in range(3):
            member.send(str(number))
        member.leave("enough")
        member.send("after the close frame")
        await trio.sleep(2)
        assert await events_until_the_end(peer) == [Message("0"), Message("1"), Message("2"), Close(1000, "enough")]


# -- pings ---------------------------------------------------------------------------------------


async def test_each_ping_of_a_peer_that_reads_is_answered(lobby: Lobby) -> None:
    async with open_test_server(lobby.app) as server, open_peer(server, "/echo/a") as peer:
        for number in range(5):
            await peer.send_frame(Opcode.PING, bytes([number]))
            assert await peer.receive_event() == Pong(bytes([number]))


@pytest.mark.parametrize("busy", [False, True])
async def test_only_the_latest_ping_is_answered_while_the_outbox_waits(
    lobby: Lobby, open_narrow_peer: OpenPeer, busy: bool
) -> None:
    async with open_test_server(lobby.app) as server, open_narrow_peer(server) as peer:
        await wait_all_tasks_blocked()
        if busy:
            for number in range(2):
                lobby.joined[0].send(str(number))
        for number in range(9):
            await peer.send_frame(Opcode.PING, bytes([number]))
        await wait_all_tasks_blocked()
        if busy:
            assert [await peer.receive_event() for _ in range(3)] == [Message("0"), Message("1"), Pong(b"\x08")]
        else:
            assert [await peer.receive_event() for _ in range(2)] == [Pong(b"\x00"), Pong(b"\x08")]
        await peer.send_frame(Opcode.PING, b"again")
        assert await peer.receive_event() == Pong(b"again")


async def test_ping_flood_of_a_peer_that_reads_nothing_keeps_memory_flat(
    lobby: Lobby, open_narrow_peer: OpenPeer
) -> None:
    flood = encode_masked(Opcode.PING, b"x" * 125) * 100
    settings = trioroom.Settings(max_control_rate=math.inf)  # or the flood would end with its hundredth ping
    async with open_test_server(lobby.app, settings) as server, open_narrow_peer(server) as peer:
        await peer.stream.send_all(flood)
        tracemalloc.start()
        for _ in range(30):
            await peer.stream.send_all(flood)
        await wait_all_tasks_blocked()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 50_000  # 3,000 pongs would be 381,000 bytes, and their objects as much again
        assert server.connection_count == 1
        await peer.send_frame(Opcode.PING, b"latest")
        await wait_all_tasks_blocked()
        pongs = [await peer.receive_event() for _ in range(3)]
        assert pongs == [Pong(b"x" * 125)] * 2 + [Pong(b"latest")]  # the writer had taken the first two


async def test_flood_does_not_keep_a_closing_connection_open(
    lobby: Lobby, open_narrow_peer: OpenPeer, autojump_clock: MockClock
) -> None:
    async with open_test_server(lobby.app, SETTINGS) as server, open_narrow_peer(server) as peer:
        await wait_all_tasks_blocked()
        lobby.joined[0].leave("enough")

        async def flood() -> None:
            while True:
                await peer.send_frame(Opcode.PING, b"x" * 125)
                await trio.sleep(0.1)

        with pytest.raises(trio.BrokenResourceError):
            await flood()
        assert trio.current_time() == pytest.approx(3, abs=0.2)
        assert server.connection_count == 0
