"""Streams before they are connections: slow ones, strange ones, those that are turned away, TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

import trioroom
from trioroom._wire.client_frames import encode_masked
from trioroom._wire.frames import Opcode, encode_frame
from trioroom.testing import open_test_server

if TYPE_CHECKING:
    from tests._net.conftest import EventsUntilTheEnd, Lobby, Upgrade

PLAIN = b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n"
"""Answered without a thread: a mock clock does not wait for one."""
TIMEOUT = trioroom.Settings().handshake_timeout


async def read_all(stream: trio.abc.Stream) -> bytes:
    return b"".join([bytes(data) async for data in stream])


async def exchange(server: trioroom.Server, request: bytes) -> bytes:
    """What comes back, until the end of the stream."""
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        await ours.send_all(request)
        return await read_all(ours)


def status(response: bytes | bytearray) -> int:
    assert response.startswith(b"HTTP/1.1 ")
    return int(response.split()[1])


# -- slow and strange peers ------------------------------------------------------------------------


async def test_handshake_in_single_bytes_is_as_good_as_any(
    server: trioroom.Server, upgrade: Upgrade, autojump_clock: MockClock
) -> None:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        for byte in upgrade() + encode_masked(Opcode.TEXT, b"hello"):
            await ours.send_all(bytes([byte]))
            await wait_all_tasks_blocked()
        await ours.send_eof()
        response = await read_all(ours)
    assert status(response) == 101


async def test_peer_that_stops_at_any_byte_is_cut_off_by_one_deadline(
    server: trioroom.Server, upgrade: Upgrade, autojump_clock: MockClock
) -> None:
    handshake = upgrade()

    async def stop_at(count: int) -> None:
        response = await exchange(server, handshake[:count])
        assert status(response) == 408
        assert response.endswith(b"\r\n\r\nthe request took too long; send it at once\n")
        assert TIMEOUT <= trio.current_time() <= TIMEOUT + 1.1  # and a second to take the answer

    async with trio.open_nursery() as nursery:
        for count in range(len(handshake)):
            nursery.start_soon(stop_at, count)


async def test_byte_now_and_then_does_not_move_the_deadline(
    server: trioroom.Server, upgrade: Upgrade, autojump_clock: MockClock
) -> None:
    ours, theirs = memory_stream_pair()

    async def drip() -> None:
        for byte in upgrade():
            await ours.send_all(bytes([byte]))
            await trio.sleep(0.9 * TIMEOUT / 2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        nursery.start_soon(drip)
        assert status(await ours.receive_some()) == 408
        assert trio.current_time() == TIMEOUT
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("count", [0, 1, 20, -1])
async def test_end_during_the_handshake_ends_it_quietly(
    server: trioroom.Server, upgrade: Upgrade, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        await ours.send_all(upgrade()[:count])
        await ours.send_eof()
        assert await read_all(ours) == b""
    assert not caplog.records


async def test_peer_that_takes_no_answer_is_given_up(server: trioroom.Server, autojump_clock: MockClock) -> None:
    ours, theirs = lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        await ours.send_all(PLAIN)
    assert trio.current_time() == pytest.approx(1)


async def test_frames_right_behind_the_handshake_are_read(
    server: trioroom.Server, upgrade: Upgrade, events_until_the_end: EventsUntilTheEnd
) -> None:
    response = await exchange(
        server, upgrade() + encode_masked(Opcode.TEXT, b"hello") + encode_masked(Opcode.CLOSE, b"\x03\xe8")
    )
    _, _, frames = response.partition(b"\r\n\r\n")
    assert frames == encode_frame(Opcode.TEXT, b"hello") + encode_frame(Opcode.CLOSE, b"\x03\xe8")


async def test_peers_that_ask_alike_are_served_alike(server: trioroom.Server, lobby: Lobby, upgrade: Upgrade) -> None:
    answers = []
    for _ in range(2):
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, theirs)
            await ours.send_all(upgrade())  # nothing behind it: with that it would be read anew
            await wait_all_tasks_blocked()
            await ours.send_all(encode_masked(Opcode.TEXT, b"hello") + encode_masked(Opcode.CLOSE, b"\x03\xe8"))
            answers.append(await read_all(ours))
    assert status(answers[0]) == 101
    assert answers[0] == answers[1]
    first, second = lobby.joined
    assert first.request is second.request
    assert first.id != second.id


async def test_server_that_drains_refuses_who_asks_like_one_it_let_in(
    server: trioroom.Server, upgrade: Upgrade, nursery: trio.Nursery
) -> None:
    ours, theirs = memory_stream_pair()
    nursery.start_soon(server.serve_stream, theirs)
    await ours.send_all(upgrade())
    await wait_all_tasks_blocked()
    server._hub.draining = True
    assert status(await exchange(server, upgrade())) == 503
    await ours.aclose()


async def test_http_behind_the_upgrade_is_bad_frames(
    server: trioroom.Server, upgrade: Upgrade, autojump_clock: MockClock
) -> None:
    response = await exchange(server, upgrade() + PLAIN)
    head, _, frames = response.partition(b"\r\n\r\n")
    assert status(head) == 101
    assert frames[2:4] == (1002).to_bytes(2, "big")
    assert b"HTTP/" not in frames


async def test_requests_behind_a_plain_one_are_not_answered(server: trioroom.Server, autojump_clock: MockClock) -> None:
    response = await exchange(server, PLAIN * 2)
    assert response.count(b"HTTP/1.1 ") == 1


# -- who is turned away ----------------------------------------------------------------------------


async def test_post_with_a_body_is_told_which_methods_there_are(
    server: trioroom.Server, autojump_clock: MockClock
) -> None:
    response = await exchange(server, b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello")
    assert status(response) == 405
    assert b"\r\nAllow: GET, HEAD\r\n" in response


async def test_path_that_leads_to_no_room_says_which_do(
    server: trioroom.Server, upgrade: Upgrade, autojump_clock: MockClock
) -> None:
    response = await exchange(server, upgrade("/nowhere"))
    assert status(response) == 404
    assert response.endswith(b"\r\n\r\nno room at '/nowhere'; connect to /echo/{name}\n")


async def test_room_name_beyond_its_bound_is_no_room(
    server: trioroom.Server, upgrade: Upgrade, autojump_clock: MockClock
) -> None:
    assert status(await exchange(server, upgrade("/echo/" + "x" * 251))) == 404
    assert status(await exchange(server, upgrade("/echo/" + "x" * 250) + encode_masked(Opcode.CLOSE, b""))) == 101


async def test_v1_may_be_spoken_at_any_path(
    server: trioroom.Server, upgrade: Upgrade, autojump_clock: MockClock
) -> None:
    offer = upgrade("/anywhere", ("Sec-WebSocket-Protocol: other, trioroom.v1.json",))
    response = await exchange(server, offer + encode_masked(Opcode.CLOSE, b""))
    assert status(response) == 101
    assert b"\r\nSec-WebSocket-Protocol: trioroom.v1.json\r\n" in response


async def test_path_of_a_room_without_an_upgrade_asks_for_one(
    server: trioroom.Server, autojump_clock: MockClock
) -> None:
    response = await exchange(server, b"GET /echo/a HTTP/1.1\r\nHost: test\r\n\r\n")
    assert status(response) == 426
    assert b"\r\nUpgrade: websocket\r\n" in response


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (tuple(f"X-{number}: x" for number in range(64)), 431),
        (("X: " + "x" * 16_384,), 431),
        (("X: a\x0bb",), 400),
        (("Content-Length: 5",), 400),
        (("Host: other",), 400),
        (("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",), 400),
        (("Sec-WebSocket-Version: 8",), 426),
    ],
)
async def test_head_out_of_bounds_is_refused_by_the_default_settings(
    server: trioroom.Server, upgrade: Upgrade, lines: tuple[str, ...], code: int, autojump_clock: MockClock
) -> None:
    response = await exchange(server, upgrade(headers=lines))
    assert status(response) == code
    assert b"; " in response.partition(b"\r\n\r\n")[2]  # what is wrong; what to do


ALLOWED = ("http://test", "http://test:80", "HTTP://TEST")
FOREIGN = (
    "https://evil.example",
    "null",
    "http://test.evil.example",
    "http://eviltest",
    "http://tes",
    "http://test:8080",
    "http://test@evil.example",
    "http://evil.example/http://test",
    "http://test, http://evil.example",
    "file://test",
    "test",
    "",
)


@pytest.mark.parametrize(("origin", "code"), [(o, 101) for o in ALLOWED] + [(o, 403) for o in FOREIGN])
async def test_page_of_another_origin_is_kept_out(
    server: trioroom.Server, upgrade: Upgrade, lobby: Lobby, origin: str, code: int, autojump_clock: MockClock
) -> None:
    request = upgrade(headers=(f"Origin: {origin}",)) + encode_masked(Opcode.CLOSE, b"")
    response = await exchange(server, request)
    assert status(response) == code
    assert len(lobby.joined) == (code == 101)
    if code == 403:
        assert b"have it added to allowed_origins" in response


@pytest.mark.parametrize(
    ("origin", "code"),
    [("https://a.example", 101), ("https://a.example:8443", 403), ("http://a.example", 403), ("http://test", 403)],
)
async def test_named_origins_are_let_in_and_no_others(
    lobby: Lobby, upgrade: Upgrade, origin: str, code: int, autojump_clock: MockClock
) -> None:
    settings = trioroom.Settings(allowed_origins=("https://a.example",))
    async with open_test_server(lobby.app, settings) as server:
        request = upgrade(headers=(f"Origin: {origin}",)) + encode_masked(Opcode.CLOSE, b"")
        assert status(await exchange(server, request)) == code


# -- cancellation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["reading the head", "answering", "waiting for the peer to take it"])
async def test_cancelled_handshake_closes_the_stream(
    server: trioroom.Server, moment: str, autojump_clock: MockClock
) -> None:
    ours, theirs = lockstep_stream_pair() if moment == "answering" else memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        if moment != "reading the head":
            await ours.send_all(PLAIN)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with pytest.raises(trio.BrokenResourceError):
        await ours.send_all(b"x")
    assert trio.current_time() == 0
