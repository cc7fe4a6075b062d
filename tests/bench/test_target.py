from __future__ import annotations

import socket

import msgspec
import pytest

from trioroom._wire.client_frames import take_frame
from trioroom._wire.frames import apply_mask
from trioroom.bench.options import Protocol
from trioroom.bench.target import parse_target


def envelopes(frames: bytes) -> list[object]:
    """What a client's frames hold; their masks are zeros."""
    found = []
    while frames:
        unmasked = bytes((frames[0], frames[1] & 0x7F)) + frames[2:]
        head = 2 if unmasked[1] < 126 else 4
        assert frames[head : head + 4] == bytes(4)
        taken = take_frame(unmasked[:head] + unmasked[head + 4 :])
        assert taken is not None
        _, payload, frames = taken
        found.append(msgspec.json.decode(apply_mask(payload, bytes(4))))
    return found


def test_plain_request_names_the_room_and_carries_the_token() -> None:
    target = parse_target(["ws://127.0.0.1:8000/chat/{n}"], Protocol.PLAIN, "secret")
    request = target.upgrade(target.endpoints[0], 7)
    assert request.startswith(b"GET /chat/7 HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n")
    assert b"Authorization: Bearer secret\r\n" in request
    assert request.endswith(b"\r\n\r\n")
    assert target.has_numbers
    assert target.loopback
    assert target.endpoints[0].family is socket.AF_INET


def test_v1_joins_with_token_and_position() -> None:
    target = parse_target(["http://127.0.0.1/kept"], Protocol.V1, "secret")
    assert b"Sec-WebSocket-Protocol: trioroom.v1.json\r\n" in target.upgrade(target.endpoints[0], 0)
    assert b"secret" not in target.upgrade(target.endpoints[0], 0)
    position = {"epoch": "e", "offset": 4}
    assert envelopes(target.join(0, position)) == [
        {"type": "auth", "id": 1, "token": "secret"},
        {"type": "join", "id": 2, "room": "kept", "position": position},
    ]
    assert target.endpoints[0].port == 80


def test_messages_are_of_the_size_asked_for() -> None:
    plain = parse_target(["ws://127.0.0.1/all"], Protocol.PLAIN)
    assert plain.message(0, 100)[6:] == b"x" * 100
    v1 = parse_target(["ws://127.0.0.1/all"], Protocol.V1)
    assert envelopes(v1.message(0, 3, id=9)) == [{"type": "publish", "room": "all", "data": "xxx", "id": 9}]
    assert envelopes(v1.message(0, 3)) == [{"type": "publish", "room": "all", "data": "xxx"}]


def test_goodbye_ends_with_a_close_frame() -> None:
    plain = parse_target(["ws://127.0.0.1/all"], Protocol.PLAIN).leave(0)
    assert plain == b"\x88\x82\0\0\0\0\x03\xe8"
    v1 = parse_target(["ws://127.0.0.1/all"], Protocol.V1).leave(0)
    assert v1.endswith(plain)
    assert envelopes(v1.removesuffix(plain)) == [{"type": "leave", "id": 3, "room": "all"}]


def test_other_machines_are_not_this_one() -> None:
    assert not parse_target(["ws://192.0.2.1:8000/"], Protocol.PLAIN).loopback
    assert not parse_target(["ws://[::1]:8000/"], Protocol.PLAIN).loopback
    assert parse_target(["ws://[::1]:8000/"], Protocol.PLAIN).endpoints[0].family is socket.AF_INET6


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("wss://127.0.0.1/", "give the ws:// address behind it"),
        ("127.0.0.1:8000", "write ws://HOST:PORT/ROOM"),
        ("ftp://127.0.0.1/", "write ws://HOST:PORT/ROOM"),
        ("ws:///all", "write ws://HOST:PORT/ROOM"),
        ("ws://127.0.0.1:99999/", "Port out of range"),
        ("ws://no-such-host.invalid/", "no-such-host.invalid"),
    ],
)
def test_url_that_is_none_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_target([url], Protocol.PLAIN)


def test_members_are_dealt_to_servers_in_blocks() -> None:
    target = parse_target([f"ws://127.0.0.1:{port}/all" for port in (1, 2, 3)], Protocol.PLAIN)
    assert [target.endpoint_of(member, 7).port for member in range(7)] == [1, 1, 1, 2, 2, 3, 3]
    assert b"Host: 127.0.0.1:2\r\n" in target.upgrade(target.endpoint_of(3, 7), 0)


def test_servers_have_to_have_one_room() -> None:
    with pytest.raises(ValueError, match="not in /a and /b"):
        parse_target(["ws://127.0.0.1:1/a", "ws://127.0.0.1:2/b"], Protocol.PLAIN)


def test_this_machine_is_where_all_servers_are() -> None:
    assert not parse_target(["ws://127.0.0.1:1/a", "ws://192.0.2.1:1/a"], Protocol.PLAIN).loopback
