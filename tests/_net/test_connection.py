"""One connection: how it closes, what a peer may do wrong, and what that costs."""

from __future__ import annotations

import struct
import tracemalloc
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from tests.conftest import Recorder
from trioroom._wire.client_frames import encode_masked
from trioroom._wire.frames import Close, Opcode, Pong, apply_mask
from trioroom.testing import open_peer, open_test_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests._net.conftest import EventsUntilTheEnd, Lobby

MASK = b"\x11\x22\x33\x44"


def frame(first: int, payload: bytes = b"", *, length: bytes | None = None, masked: bool = True) -> bytes:
    """A frame with any first byte; ``length`` is the second byte and what extends it, if it shall not be right."""
    if length is None:
        length = bytes([len(payload)]) if len(payload) < 126 else struct.pack(">BH", 126, len(payload))
    if not masked:
        return bytes([first]) + length + payload
    return bytes([first, length[0] | 0x80]) + length[1:] + MASK + apply_mask(payload, MASK)


# -- the closing handshake -----------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", struct.pack(">H", 1000), struct.pack(">H", 3456) + "tschüß".encode()])
async def test_close_frame_is_echoed_and_the_stream_ends(
    events_until_the_end: EventsUntilTheEnd, lobby: Lobby, payload: bytes, autojump_clock: MockClock
) -> None:
    async with open_test_server(lobby.app) as server, open_peer(server, "/echo/a") as peer:
        await peer.send_frame(Opcode.CLOSE, payload)
        code = int.from_bytes(payload[:2], "big") if payload else 1005
        assert await events_until_the_end(peer) == [Close(code, payload[2:].decode())]
        assert trio.current_time() == 0
    assert lobby.left == [payload[2:].decode() or f"closed with {code}"]


@pytest.mark.parametrize("tcp", [False, True])
async def test_what_comes_after_the_peers_close_frame_is_no_message(
    events_until_the_end: EventsUntilTheEnd, lobby: Lobby, tcp: bool
) -> None:
    async with open_test_server(lobby.app, tcp=tcp) as server, open_peer(server, "/echo/a", tcp=tcp) as peer:
        close = encode_masked(Opcode.CLOSE, struct.pack(">H", 1000))
        await peer.stream.send_all(encode_masked(Opcode.TEXT, b"before") + close + encode_masked(Opcode.TEXT, b"after"))
        with trio.fail_after(5):
            assert await events_until_the_end(peer) == [trioroom.Message("before"), Close(1000, "")]


@pytest.mark.parametrize("answers", [True, False])
async def test_our_close_waits_for_the_answer_until_its_deadline(
    events_until_the_end: EventsUntilTheEnd, lobby: Lobby, answers: bool, autojump_clock: MockClock
) -> None:
    async with open_test_server(lobby.app) as server, open_peer(server, "/echo/a") as peer:
        await peer.send("x")
        assert await peer.receive() == "x"
        lobby.joined[0].leave("enough")
        assert await peer.receive_event() == Close(1000, "enough")
        await peer.send("too late")
        if answers:
            await peer.close(1000)
        assert await events_until_the_end(peer) == []
        assert trio.current_time() == pytest.approx(0 if answers else 1)  # close_timeout
    assert (lobby.received, lobby.left) == (["x"], ["enough"])


async def test_pings_after_our_close_frame_are_not_answered(
    events_until_the_end: EventsUntilTheEnd, lobby: Lobby, autojump_clock: MockClock
) -> None:
    async with open_test_server(lobby.app) as server, open_peer(server, "/echo/a") as peer:
        await wait_all_tasks_blocked()
        lobby.joined[0].leave("enough")
        await peer.send_frame(Opcode.PING, b"still there?")
        assert await events_until_the_end(peer) == [Close(1000, "enough")]


@pytest.mark.parametrize("tcp", [False, True])
async def test_half_close_of_the_peer_ends_the_connection(
    events_until_the_end: EventsUntilTheEnd, lobby: Lobby, tcp: bool
) -> None:
    async with open_test_server(lobby.app, tcp=tcp) as server, open_peer(server, "/echo/a", tcp=tcp) as peer:
        await peer.send("last")
        assert await peer.receive() == "last"
        assert isinstance(peer.stream, trio.abc.HalfCloseableStream)
        await peer.stream.send_eof()
        with trio.fail_after(5):
            assert await events_until_the_end(peer) == []
            await lobby.someone_left.wait()
    assert lobby.left == ["connection lost"]


@pytest.mark.parametrize("tcp", [False, True])
async def test_half_close_after_the_close_frame_still_gets_the_answer(
    events_until_the_end: EventsUntilTheEnd, lobby: Lobby, tcp: bool
) -> None:
    async with open_test_server(lobby.app, tcp=tcp) as server, open_peer(server, "/echo/a", tcp=tcp) as peer:
        await peer.close(1001)
        assert isinstance(peer.stream, trio.abc.HalfCloseableStream)
        await peer.stream.send_eof()
        with trio.fail_after(5):
            assert await events_until_the_end(peer) == [Close(1001, "")]


# -- what a peer may do wrong ----------------------------------------------------------------------

LIMIT = trioroom.Settings().max_message_bytes
VIOLATIONS = {
    "unmasked": (frame(0x81, b"x", masked=False), 1002, "a client masks all it sends"),
    "rsv1": (frame(0xC1, b"x"), 1002, "clear RSV1-3"),
    "rsv2": (frame(0xA1, b"x"), 1002, "clear RSV1-3"),
    "rsv3 of a control frame": (frame(0x99, b"x"), 1002, "send it with RSV1-3 clear"),
    "reserved data opcode": (frame(0x83, b"x"), 1002, "send text, binary or control frames"),
    "reserved control opcode": (frame(0x8B), 1002, "send text, binary or control frames"),
    "text not UTF-8": (frame(0x81, b"\xff"), 1007, "send it encoded as UTF-8 or as a binary message"),
    "text that ends amid a character": (frame(0x81, b"\xc3"), 1007, "send it encoded as UTF-8"),
    "fragments not UTF-8": (frame(0x01, b"\xc3") + frame(0x00, b"\xc3"), 1007, "send it encoded as UTF-8"),
    "oversize by its head": (frame(0x82, length=struct.pack(">BQ", 127, LIMIT + 1)), 1009, "send it in smaller"),
    "oversize by 4 GiB": (frame(0x82, length=struct.pack(">BQ", 127, 1 << 32)), 1009, "send it in smaller"),
    "oversize by all": (frame(0x82, length=struct.pack(">BQ", 127, (1 << 63) - 1)), 1009, "send it in smaller"),
    "top bit of the length": (frame(0x82, length=struct.pack(">BQ", 127, 1 << 63)), 1002, "send less"),
    "oversize in parts": (
        frame(0x02, b"x" * 40_000) + frame(0x00, length=struct.pack(">BH", 126, 40_000)),
        1009,
        f"message of 80000 bytes exceeds max_message_bytes={LIMIT}; send it in smaller messages",
    ),
    "length of 2^63 - 1 in parts": (
        frame(0x02, b"x") + frame(0x80, length=struct.pack(">BQ", 127, (1 << 63) - 1)),
        1009,
        "send it in smaller",
    ),
    "too many fragments": (frame(0x02, b"x") + frame(0x00, b"x") * 64, 1009, "send fewer, larger ones"),
    "too many empty fragments": (frame(0x02) + frame(0x00) * 64, 1009, "max_fragments=64"),
    "continuation of nothing": (frame(0x80, b"x"), 1002, "begin with a text or binary frame"),
    "message inside a message": (frame(0x01, b"x") + frame(0x81, b"x"), 1002, "send continuation frames"),
    "long control frame": (frame(0x89, b"x" * 126), 1002, "send less"),
    "fragmented control frame": (frame(0x09, b"x"), 1002, "send it whole"),
    "length not in its shortest form": (frame(0x82, length=b"\x7e\x00\x05"), 1002, "shortest form"),
    "close frame of one byte": (frame(0x88, b"\x03"), 1002, "section 7.4"),
    "close code that none may send": (frame(0x88, struct.pack(">H", 1005)), 1002, "section 7.4"),
    "close reason not UTF-8": (frame(0x88, struct.pack(">H", 1000) + b"\xff"), 1007, "UTF-8"),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_violation_is_answered_with_its_code_and_what_to_do(
    lobby: Lobby, violation: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    data, code, advice = VIOLATIONS[violation]
    async with open_test_server(lobby.app, trioroom.Settings()) as server, open_peer(server, "/echo/a") as bystander:
        async with open_peer(server, "/echo/a") as peer:
            await peer.stream.send_all(data)
            close = await peer.receive_event()
            assert isinstance(close, Close)
            assert (close.code, advice in close.reason) == (code, True), close
        await bystander.send("unharmed")
        assert await bystander.receive() == "unharmed"
        assert server.connection_count == 1
    assert lobby.left[0] == close.reason
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_violation_behind_good_frames_takes_none_of_them_back(
    events_until_the_end: EventsUntilTheEnd, lobby: Lobby, autojump_clock: MockClock
) -> None:
    async with open_test_server(lobby.app) as server, open_peer(server, "/echo/a") as peer:
        await peer.stream.send_all(frame(0x81, b"one") + frame(0x81, b"two") + frame(0x83) + frame(0x81, b"three"))
        one, two, close = await events_until_the_end(peer)
        assert [one, two] == [trioroom.Message("one"), trioroom.Message("two")]
        assert isinstance(close, Close)
        assert trio.current_time() == pytest.approx(1)  # close_timeout: this peer never ends its side


@pytest.mark.parametrize("cut", [1, 2, 5, 6, 8])
async def test_frame_torn_by_the_end_is_dropped_without_a_word(
    events_until_the_end: EventsUntilTheEnd, lobby: Lobby, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_test_server(lobby.app) as server, open_peer(server, "/echo/a") as peer:
        await peer.stream.send_all(frame(0x81, b"hello")[:cut])
        assert isinstance(peer.stream, trio.abc.HalfCloseableStream)
        await peer.stream.send_eof()
        assert await events_until_the_end(peer) == []
    assert lobby.left == ["connection lost"]
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_control_frames_amid_fragments_leave_the_message_whole(
    events_until_the_end: EventsUntilTheEnd, lobby: Lobby
) -> None:
    async with open_test_server(lobby.app) as server, open_peer(server, "/echo/a") as peer:
        await peer.stream.send_all(frame(0x01, b"he") + frame(0x89, b"?") + frame(0x8A) + frame(0x80, b"llo"))
        assert await peer.receive_event() == Pong(b"?")
        assert await peer.receive_event() == trioroom.Message("hello")
        await peer.stream.send_all(frame(0x01, b"he") + frame(0x88, struct.pack(">H", 1000)))
        assert await events_until_the_end(peer) == [Close(1000, "")]


async def test_close_frame_reaches_a_peer_that_is_still_sending(lobby: Lobby) -> None:
    async with open_test_server(lobby.app, tcp=True) as server, open_peer(server, "/echo/a", tcp=True) as peer:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:

                async def go_on_sending() -> None:
                    await peer.stream.send_all(frame(0x82, length=struct.pack(">BQ", 127, 1 << 20)))
                    await peer.stream.send_all(b"x" * (1 << 20))  # closing with this unread would be a reset
                    await peer.stream.aclose()

                nursery.start_soon(go_on_sending)
                close = await peer.receive_event()
                nursery.cancel_scope.cancel()
        assert isinstance(close, Close)
        assert close.code == 1009


async def test_fragments_that_never_end_cost_no_more_than_they_carry(lobby: Lobby) -> None:
    settings = trioroom.Settings(max_fragments=100_000)
    async with open_test_server(lobby.app, settings) as server, open_peer(server, "/echo/a") as peer:
        await peer.send("warm up")
        await peer.receive()
        await peer.stream.send_all(frame(0x02))
        tracemalloc.start()
        for _ in range(20):  # a byte each: 20,000 objects to hold one would be more than a megabyte
            await peer.stream.send_all(frame(0x00, b"x") * 1_000)
            await wait_all_tasks_blocked()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert held < 100_000


class Torrent(Recorder):
    """A peer that has always sent more, until it is told to end."""

    parked = False

    def __init__(self, handshake: bytes) -> None:
        super().__init__()
        self.flowing = True
        self._handshake = handshake

    def receive_nowait(self) -> bytes:
        if self._handshake:
            data, self._handshake = self._handshake, b""
            return data
        return encode_masked(Opcode.TEXT, b"x") if self.flowing else b""


async def test_peer_that_never_lets_up_lets_others_run(
    upgrade: Callable[..., bytes], nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    handled = 0

    class Count(trioroom.Room):
        async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
            nonlocal handled
            handled += 1

    app = trioroom.App()
    app.route("count", Count)
    async with open_test_server(app) as server:
        torrent = Torrent(upgrade("/count"))
        nursery.start_soon(server._entrance.serve_transport, torrent)
        while not handled:
            await trio.lowlevel.checkpoint()
        before = handled
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        torrent.flowing = False
        assert 10 <= handled - before <= 40  # two at a time, as each comes by itself


async def test_http_peer_that_sends_on_after_its_answer_lets_others_run(
    lobby: Lobby, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with open_test_server(lobby.app) as server:
        torrent = Torrent(b"GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n")
        nursery.start_soon(server._entrance.serve_transport, torrent)
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        torrent.flowing = False
