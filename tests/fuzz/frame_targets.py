"""Targets of frames and compression, as a client sends them and gets them."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable

from tests.fuzz.inputs import cut, split
from tests.fuzz.reference import Reading
from trioroom._wire.client_frames import encode_masked, take_frame
from trioroom._wire.deflate import DeflateParameters, compress, inflate, negotiate_deflate
from trioroom._wire.frames import Close, Event, FrameParser, Opcode, Ping, apply_mask, encode_close, encode_frame
from trioroom._wire.message import Message
from trioroom.errors import RemoteProtocolError

MESSAGE_BYTES = (16, 125, 1_000, 70_000)
FRAGMENTS = (1, 2, 4, 64)
MAX_HEAD = 2 + 8 + 4 + 125  # of a frame, and for a control frame the whole of it
PLENTY = 1 << 20


def frames(data: bytes) -> None:
    """Any stream gives the same events however it is cut, those of the RFC, and is held within the bounds."""
    (flags, how), stream = split(data, 2)
    limits = MESSAGE_BYTES[flags >> 1 & 3], FRAGMENTS[flags >> 3 & 3]
    inflate = bool(flags & 1)
    expected = Reading(*limits, inflate)
    expected.read(stream)
    outcomes = [
        read(FrameParser(*limits, inflate=inflate), chunks, few)
        for chunks, few in (([stream], sys.maxsize), (cut(stream, how), sys.maxsize), ([stream], 1 + (flags >> 5)))
    ]
    for events, error in outcomes:
        assert (events, error and error.close_code) == (expected.events, expected.close_code)
        assert str(error) == str(outcomes[0][1])
    again = FrameParser(PLENTY, 1)
    assert again.feed(b"".join(map(encode, expected.events))) == expected.events
    assert again.error is None


def read(parser: FrameParser, chunks: Iterable[bytes], few: int) -> tuple[list[Event], RemoteProtocolError | None]:
    """What becomes of all of them, ``few`` events at a time."""
    events: list[Event] = []
    for chunk in chunks:
        rest = chunk
        while True:
            some = parser.feed(rest, few)
            check_held(parser)
            events += some
            if not (rest := parser.rest):
                break
            assert len(some) == few
    assert all(len(event.data) <= parser._max_message_bytes for event in events if isinstance(event, Message))  # type: ignore[arg-type]
    closed = [isinstance(event, Close) for event in events]
    assert True not in closed[:-1]
    if parser.error is not None or True in closed:
        assert (parser._assembly, parser._head, parser.feed(b"\x81\x80\0\0\0\0")) == (None, b"", [])
    return events, parser.error


def check_held(parser: FrameParser) -> None:
    """No more bytes and fragments are held than there may be."""
    assert len(parser._head) < MAX_HEAD
    if (assembly := parser._assembly) is not None:
        bound = parser._max_message_bytes
        assert len(assembly.data) <= bound + (bound // 8 + 64 if assembly.compressed else 0)
        assert assembly.fragments <= parser._max_fragments


def encode(event: Event) -> bytes:
    """As a client sends it."""
    mask = b"\x37\xfa\x21\x3d"
    if isinstance(event, Message):
        if isinstance(event.data, str):
            return encode_masked(Opcode.TEXT, event.data.encode(), mask)
        assert isinstance(event.data, bytes)
        return encode_masked(Opcode.BINARY, event.data, mask)
    if isinstance(event, Close):
        taken = take_frame(encode_close(event.code, event.reason))
        assert taken is not None
        return encode_masked(Opcode.CLOSE, taken[1], mask)
    return encode_masked(Opcode.PING if isinstance(event, Ping) else Opcode.PONG, event.payload, mask)


def client_frames(data: bytes) -> None:
    """What is encoded is taken off again, bytes as well as a view of them, and never before all of it is there."""
    (kind, *mask), payload = split(data, 5)
    opcode = tuple(Opcode)[kind % len(Opcode)]
    frame = encode_frame(opcode, payload)
    assert take_frame(frame + data) == (opcode, payload, data)
    assert take_frame(frame[:-1]) is None
    assert take_frame(frame[: kind % len(frame)]) is None
    for anything in (data, payload):
        taken, viewed = take_frame(anything), take_frame(memoryview(anything))
        assert (taken is None) is (viewed is None)
        assert taken is None or tuple(taken) == tuple(viewed or ())
    masked = apply_mask(payload, bytes(mask))
    assert masked == bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    assert encode_masked(opcode, payload, bytes(mask)).endswith(bytes(mask) + masked)


def deflate(data: bytes) -> None:
    """Any payload inflates within its bound or is refused, and what is compressed inflates to itself."""
    (bits, bound), payload = split(data, 2)
    small = compress(payload, 9 + bits % 7)
    assert inflate(small, len(payload)) == payload
    assert not payload or refusal(small, len(payload) - 1) == 1009
    whole = refusal(payload, PLENTY)
    if whole is None:
        message = inflate(payload, PLENTY)
        assert inflate(payload, len(message)) == message
        assert refusal(payload, bound) == (1009 if len(message) > bound else None)
        assert zlib.decompressobj(-15).decompress(payload) == message
    else:
        assert refusal(payload, bound) in (1007, 1009)


def refusal(payload: bytes, bound: int) -> int | None:
    """The code that ``payload`` is refused with, if it is."""
    try:
        assert len(inflate(payload, bound)) <= bound
    except RemoteProtocolError as exc:
        return exc.close_code
    return None


def extensions(data: bytes) -> None:
    """Any offers are declined, or answered with what is an offer of the same itself."""
    offers = data.decode("latin-1").split("\n")
    agreed = negotiate_deflate(offers)
    if agreed is None:
        return
    assert 9 <= agreed.server_max_window_bits <= 15
    assert agreed.window_was_requested or agreed == DeflateParameters()
    assert negotiate_deflate([agreed.response]) == agreed
    assert negotiate_deflate([*offers, agreed.response]) == agreed  # the first one that can be kept counts


TARGETS = (frames, client_frames, deflate, extensions)
