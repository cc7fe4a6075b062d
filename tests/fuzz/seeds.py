"""What fuzzing begins with, besides the corpus: traffic that is in order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import msgspec

from tests.fuzz.handshake_targets import KEY
from trioroom._core.history import Position
from trioroom._core.snapshot import BusyRoom, SlowConnection, Snapshot
from trioroom._wire.client_frames import encode_masked
from trioroom._wire.control import (
    Answered,
    Asked,
    Command,
    CountMembers,
    Disconnect,
    Done,
    FindRooms,
    Found,
    Kick,
    Look,
    Seen,
    encode_control,
)
from trioroom._wire.deflate import compress
from trioroom._wire.envelopes import History, Join, Who
from trioroom._wire.frames import Opcode
from trioroom._wire.message import Data
from trioroom._wire.publication import encode_publication

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts" / "v1.json"


def seeds(target: str) -> list[bytes]:
    """Inputs for it, parameters included."""
    return _SEEDS[target]


def _frames() -> list[bytes]:
    text, mask = "κόσμε 😀".encode(), b"\x37\xfa\x21\x3d"
    frame = encode_masked(Opcode.TEXT, text, mask)
    fragment, more, end = b"\x01" + frame[1:], encode_masked(0, text, mask), b"\x80\x80" + mask
    small = compress(text * 3)
    packed = b"\xc1" + encode_masked(Opcode.TEXT, small, mask)[1:]
    ping, pong = encode_masked(Opcode.PING, b"ping", mask), encode_masked(Opcode.PONG, b"", mask)
    close = encode_masked(Opcode.CLOSE, (1000).to_bytes(2, "big") + b"bye", mask)
    streams = [
        frame + ping + pong + close,
        fragment + b"\x00" + more[1:] + ping + end + frame,
        packed + packed + close,
        b"\x41"
        + encode_masked(Opcode.TEXT, small[:5], mask)[1:]
        + encode_masked(0, small[5:], mask).replace(b"\0", b"\x80", 1),
        encode_masked(Opcode.BINARY, bytes(126), mask) + encode_masked(Opcode.BINARY, bytes(300), mask)[:200],
        encode_masked(Opcode.BINARY, bytes(70_000), mask)[:2_000],
        encode_masked(Opcode.CLOSE, b"", mask),
        encode_masked(Opcode.TEXT, b"\xed\xa0\x80", mask),
    ]
    return [bytes((flags, how)) + stream for stream in streams for flags, how in ((0x1C, 0), (0x1D, 0x23), (0x7F, 1))]


def _client_frames() -> list[bytes]:
    return [bytes((kind,)) + b"mask" + bytes(size) for kind in range(6) for size in (0, 1, 125, 126, 300)]


def _deflate() -> list[bytes]:
    texts = [b"", b"Hello", b"Hello" * 50, bytes(range(256))]
    endings = (b"", b"\x00", b"\x03\x00", b"\x03\x00\x00")
    return [b"\x06\x20" + compress(text) + ending for text in texts for ending in endings]


_OFFERS = (
    "permessage-deflate; client_max_window_bits",
    'foo; bar="\\";,", permessage-deflate; server_max_window_bits="10"; client_no_context_takeover',
    "permessage-deflate; server_no_context_takeover; client_max_window_bits=15, permessage-deflate",
)
_HEADERS = (
    "Origin: https://example.com",
    "Origin: http://[::1]:8000\r\nSec-WebSocket-Protocol: chat, trioroom.v1.json",
    *(f"Sec-WebSocket-Extensions: {offer}" for offer in _OFFERS),
    "Cookie: a=b\r\nAuthorization: Bearer x\r\nUser-Agent: Mozilla/5.0",
    "Sec-WebSocket-Protocol: trioroom.v1.msgpack\r\nOrigin: null\r\nAccept: */*\0Origin: https://example.com",
)
_HEADS = (
    "GET /chat?token=a%20b HTTP/1.1\r\nHost: example.com\r\nAuthorization: Bearer abc\r\n\r\nmore",
    "POST http://example.com:80/api HTTP/1.1\r\nHost: example.com:80\r\nContent-Length: 12\r\n\r\n",
    "HEAD /%E2%82%AC HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: [::1]\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
)
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_PROXIES = (
    b"PROXY TCP4 192.0.2.1 198.51.100.7 1234 443\r\nGET",
    b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 65535\r\n",
    b"PROXY UNKNOWN ffff::1 what ever\r\n",
    _V2 + b"\x21\x11\0\x0c" + bytes(range(12)) + b"GET",
    _V2 + b"\x21\x21\0\x28" + bytes(range(40)),
    _V2 + b"\x20\x00\0\x00",
    _V2 + b"\x21\x31\0\xd8" + bytes(216),
)
_FORWARDED = (
    "X-Forwarded-For: 192.0.2.1, 10.0.0.2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: example.com",
    "X-Forwarded-For: [2001:db8::1]:80\r\nX-Forwarded-For: unknown, fd00::1",
    'Forwarded: for="[2001:db8::1]:80";proto=https;host="exa\\mple.com", for=10.0.0.2',
    "Forwarded: for=192.0.2.1;by=_hidden;proto=wss, for=unknown",
)


def _envelopes(side: str) -> list[bytes]:
    conversations = json.loads(TRANSCRIPTS.read_text("utf-8"))
    found = [step[side] for conversation in conversations for step in conversation["steps"] if side in step]
    if side == "client":
        position = Position("e1", 41)
        requests = (Join(1, "r", position), History(2, "r", 10, after=position), Who("x", "r", 5, "ann"))
        found += map(msgspec.to_builtins, requests)
        found.append({"type": "publish", "room": "r", "data": "aGk=", "encoding": "base64", "publication_id": "p"})
    as_json = [b"\0" + msgspec.json.encode(each) for each in found]
    return as_json + [b"\1" + msgspec.msgpack.encode(each) for each in found]


def _publications() -> list[bytes]:
    values: tuple[Data, ...] = ("text", b"bytes", {"a": [1, 2.5, None, True, -1, 1 << 63]}, [[]])
    odd: tuple[object, ...] = (
        msgspec.msgpack.Ext(5, b"x"),
        {1: 2},
        {None: [[[]]]},
    )  # what MessagePack has, and JSON has not
    return [encode_publication(value, "ann", "bob", "key") for value in values] + [
        msgspec.msgpack.encode([value]) for value in odd
    ]


def _control() -> list[bytes]:
    commands: tuple[Command, ...] = (
        Disconnect(4005, "out", user="ann"),
        Kick("r", "ann", "why"),
        FindRooms("r/", "", 10),
        CountMembers("r"),
        Look(),
    )
    snapshot = Snapshot(
        node="n",
        label="host 7",
        version="0.1.0",
        time=1.5e9,
        uptime=2.5,
        draining=False,
        backplane_ready=True,
        connections=1,
        max_connections=None,
        refused_connections=0,
        rooms=1,
        members=1,
        messages_received=1,
        deliveries={},
        queued_bytes=0,
        max_queued_bytes=1 << 30,
        loop_lag=0.1,
        cpu_seconds=0.1,
        resident_bytes=None,
        open_files=None,
        max_open_files=None,
        busy_rooms=[BusyRoom("r", 1, 0, 1)],
        slow_connections=[SlowConnection("c", 1, 100, 0.5)],
    )
    results = (Done(3), Found([("r", 2)], True), Seen(snapshot))
    return [encode_control(Asked("n", 7, command)) for command in commands] + [
        encode_control(Answered("n", 7, result)) for result in results
    ]


def _prefixed(parameters: bytes, texts: tuple[str, ...]) -> list[bytes]:
    return [parameters + text.encode() for text in texts]


_SEEDS: Final = {
    "frames": _frames(),
    "client_frames": _client_frames(),
    "deflate": _deflate(),
    "extensions": _prefixed(b"", _OFFERS),
    "http": _prefixed(b"\0\x23", _HEADS),
    "handshake": _prefixed(b"\x04\0", _HEADERS) + _prefixed(b"\x06\x03", _HEADERS) + _prefixed(b"\x01\x04", _HEADS),
    "proxy_protocol": [b"\x23" + header for header in _PROXIES],
    "forwarded": _prefixed(b"\0", _FORWARDED) + _prefixed(b"\1", _FORWARDED),
    "envelopes": _envelopes("client"),
    "server_envelopes": _envelopes("server"),
    "publications": _publications(),
    "control": _control(),
}
