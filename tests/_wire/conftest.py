"""What tests of `_wire` share: frames and envelopes as a peer makes them, and what is made of them.

Plain functions, since tables of parameters and strategies need them too. Tests take them by a plain import: pytest
has loaded this module, by that name, before it comes to any test of this folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import cycle
from operator import xor
from typing import TypeAlias

import msgspec
import pytest

from trioroom._wire.codec import JSON, MSGPACK, Codec, EnvelopeError
from trioroom._wire.envelopes import Call, Publish, Request
from trioroom._wire.frames import Event, FrameParser, Opcode
from trioroom._wire.message import Data
from trioroom.errors import RemoteProtocolError

# -- frames as a client sends them, made apart from the code under test ----------------------------

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = Opcode
MASK = b"\x37\xfa\x21\x3d"


def head(opcode: int, length: int, *, fin: bool = True, rsv: int = 0, masked: bool = True, form: int = 0) -> bytes:
    """The head up to its mask; ``form`` asks for a longer form of the length (126 or 127) than it needs."""
    first = fin << 7 | rsv << 4 | opcode
    form = form or (length if length < 126 else 126 if length < 1 << 16 else 127)
    extended = length.to_bytes(2 if form == 126 else 8, "big") if form > 125 else b""
    return bytes([first, masked << 7 | form]) + extended


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes = MASK) -> bytes:
    return head(opcode, len(payload), fin=fin, rsv=rsv) + mask + bytes(map(xor, payload, cycle(mask)))


def fragments(opcode: int, payloads: Sequence[bytes], *, rsv: int = 0) -> list[bytes]:
    """A message in one frame for each of ``payloads``."""
    last = len(payloads) - 1
    return [
        frame(opcode if not at else CONTINUATION, payload, fin=at == last, rsv=0 if at else rsv)
        for at, payload in enumerate(payloads)
    ]


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


def in_steps(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


# -- what the parser makes of them -----------------------------------------------------------------

LIMIT = 1000
PLENTY = 1 << 20
RESERVED_BIT = "1002 reserved bit is set that no extension gave a meaning; clear RSV1-3"


def too_big(size: int, bound: int = LIMIT) -> str:
    return f"1009 message of {size} bytes exceeds max_message_bytes={bound}; send it in smaller messages"


def make_parser(max_message_bytes: int = PLENTY, max_fragments: int = PLENTY, *, inflate: bool = False) -> FrameParser:
    return FrameParser(max_message_bytes, max_fragments, inflate=inflate)


def feed(parser: FrameParser, chunks: Iterable[bytes], at_once: int = sys.maxsize) -> list[Event]:
    """All events, taken so many at a time."""
    events: list[Event] = []
    for chunk in chunks:
        rest = chunk
        while True:
            some = parser.feed(rest, at_once)
            assert len(some) <= at_once
            events += some
            if not (rest := parser.rest):
                break
            assert len(some) == at_once
    return events


def parse(data: bytes, parser: FrameParser | None = None) -> list[Event]:
    """The events of faultless bytes."""
    parser = parser or make_parser()
    events = parser.feed(data)
    assert parser.error is None
    return events


def refusal(data: bytes, max_message_bytes: int = LIMIT, max_fragments: int = 64, *, inflate: bool = False) -> str:
    """The close code and message that ``data`` is answered with, whole and byte by byte; it has no event before."""
    whole = FrameParser(max_message_bytes, max_fragments, inflate=inflate)
    bytewise = FrameParser(max_message_bytes, max_fragments, inflate=inflate)
    assert whole.feed(data) == []
    assert feed(bytewise, in_steps(data, 1)) == []
    assert whole.error is not None
    assert describe(bytewise.error) == describe(whole.error)
    return describe(whole.error)


def describe(error: RemoteProtocolError | None) -> str:
    return "" if error is None else f"{error.close_code} {error}"


# -- envelopes of either encoding ------------------------------------------------------------------

Payload: TypeAlias = str | bytes
both = pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=["json", "msgpack"])
FAR_TOO_DEEP = 50_000  # the largest message has room for more
BAD_STRING = b"\xa1\xff"  # in MessagePack, one byte that is not UTF-8
GOOD = msgspec.msgpack.encode({"type": "cancel", "id": 1})  # and a request that is in order


def wire(codec: Codec, value: object) -> Payload:
    """``value`` as the payload of a frame, made apart from the code under test."""
    return msgspec.json.encode(value).decode() if codec is JSON else msgspec.msgpack.encode(value)


def unwire(codec: Codec, payload: bytes) -> object:
    decoded: object = msgspec.json.decode(payload) if codec is JSON else msgspec.msgpack.decode(payload)
    return decoded


def decode_one(codec: Codec, payload: Payload) -> Request:
    (request,) = codec.decode(payload)
    assert not isinstance(request, EnvelopeError), request
    return request


def data_of(codec: Codec, request: Request) -> Data:
    assert isinstance(request, Publish | Call)
    return codec.decode_data(request.data, request.encoding)


def map_of(*pairs: tuple[str, bytes]) -> bytes:
    """A MessagePack map whose values are encoded already."""
    return bytes([0x80 + len(pairs)]) + b"".join(msgspec.msgpack.encode(key) + value for key, value in pairs)


def publish_of(data: bytes) -> bytes:
    """A ``publish`` in MessagePack whose data is encoded already."""
    return map_of(("type", b"\xa7publish"), ("room", b"\xa1r"), ("data", data))
