from __future__ import annotations

import os
import zlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom._wire.codec import JSON, MSGPACK, Codec
from trioroom._wire.encoding import Encoding, encoding_for
from trioroom._wire.envelopes import Ok
from trioroom._wire.frames import Opcode, encode_frame

PLAIN, V1_JSON, V1_MSGPACK = (encoding_for(codec, None) for codec in (None, JSON, MSGPACK))
RSV1 = 0x40


def inflate(frame: bytes, window_bits: int) -> tuple[int, bytes]:
    """Opcode and payload of a compressed frame of up to 125 bytes, read by a client with so small a window."""
    assert frame[0] & 0xF0 == 0x80 | RSV1
    assert frame[1] == len(frame) - 2
    return frame[0] & 0x0F, zlib.decompressobj(-window_bits).decompress(frame[2:] + b"\x00\x00\xff\xff")


@pytest.mark.parametrize(
    ("data", "opcode", "payload"),
    [
        ("Grüße", Opcode.TEXT, "Grüße".encode()),
        ("", Opcode.TEXT, b""),
        (b"\x00\xff", Opcode.BINARY, b"\x00\xff"),
        (b"", Opcode.BINARY, b""),
        ({"a": [1, None, True]}, Opcode.TEXT, b'{"a":[1,null,true]}'),
        (12, Opcode.TEXT, b"12"),
        (None, Opcode.TEXT, b"null"),
    ],
)
def test_plain_peer_gets_text_and_bytes_verbatim_and_other_values_as_json(
    data: object, opcode: Opcode, payload: bytes
) -> None:
    assert PLAIN.message("r", data, "u1") == encode_frame(opcode, payload)


def test_v1_peer_gets_a_push_in_its_own_kind_of_frame() -> None:
    pushed = {"type": "message", "room": "chat/a", "data": "hello", "from": "u1"}
    frame = V1_JSON.message("chat/a", "hello", "u1")
    assert frame == encode_frame(Opcode.TEXT, b'{"type":"message","room":"chat/a","data":"hello","from":"u1"}')
    frame = V1_MSGPACK.message("chat/a", "hello", "u1")
    assert frame[0] == 0x80 | Opcode.BINARY
    assert msgspec.msgpack.decode(frame[2:]) == pushed


def test_v1_peer_gets_bytes_as_its_codec_carries_them() -> None:
    frame = V1_JSON.message("r", b"\x00\x01", None)
    assert msgspec.json.decode(frame[2:]) == {"type": "message", "room": "r", "data": "AAE=", "encoding": "base64"}
    frame = V1_MSGPACK.message("r", b"\x00\x01", None)
    assert msgspec.msgpack.decode(frame[2:]) == {"type": "message", "room": "r", "data": b"\x00\x01"}


def test_envelope_goes_in_the_codecs_kind_of_frame() -> None:
    assert V1_JSON.envelope(Ok(1)) == encode_frame(Opcode.TEXT, b'{"type":"ok","id":1}')
    frame = V1_MSGPACK.envelope(Ok(1))
    assert frame == encode_frame(Opcode.BINARY, msgspec.msgpack.encode({"type": "ok", "id": 1}))


def decode_json(payload: bytes) -> object:
    decoded: object = msgspec.json.decode(payload)
    return decoded


def decode_msgpack(payload: bytes) -> object:
    decoded: object = msgspec.msgpack.decode(payload)
    return decoded


@pytest.mark.parametrize("window_bits", [9, 12, 15])
@pytest.mark.parametrize(
    ("codec", "opcode", "read"),
    [(JSON, Opcode.TEXT, decode_json), (MSGPACK, Opcode.BINARY, decode_msgpack)],
)
def test_compressed_v1_frame_holds_the_same(
    codec: Codec, opcode: Opcode, read: Callable[[bytes], object], window_bits: int
) -> None:
    encoding = encoding_for(codec, window_bits)
    got, payload = inflate(encoding.message("r", "hello " * 200, "u1"), window_bits)
    assert got == opcode
    assert read(payload) == {"type": "message", "room": "r", "data": "hello " * 200, "from": "u1"}
    got, payload = inflate(encoding.envelope(Ok("a")), window_bits)
    assert (got, read(payload)) == (opcode, {"type": "ok", "id": "a"})


@pytest.mark.parametrize("window_bits", [9, 15])
def test_compressed_plain_frame_holds_the_same(window_bits: int) -> None:
    encoding = encoding_for(None, window_bits)
    assert inflate(encoding.message("r", "hello " * 200, None), window_bits) == (Opcode.TEXT, b"hello " * 200)
    assert inflate(encoding.message("r", bytes(1000), None), window_bits) == (Opcode.BINARY, bytes(1000))
    assert inflate(encoding.message("r", [1], None), window_bits) == (Opcode.TEXT, b"[1]")
    assert inflate(encoding.message("r", "", None), window_bits) == (Opcode.TEXT, b"")


def test_window_is_the_one_agreed_on() -> None:
    """What repeats itself further back than 512 bytes shows how far the compressor looks."""
    block = os.urandom(300)
    small, large = (encoding_for(None, bits).message("r", block + bytes(1000) + block, None) for bits in (9, 15))
    assert len(large) < 400 < 600 < len(small)


def test_there_is_one_encoding_of_each_kind() -> None:
    """Fan-out groups members by it."""
    kinds = [(codec, bits) for codec in (None, JSON, MSGPACK) for bits in (None, 9, 15)]
    encodings = [encoding_for(*kind) for kind in kinds]
    assert len(set(map(id, encodings))) == len(kinds)
    for kind, encoding in zip(kinds, encodings, strict=True):
        assert encoding_for(*kind) is encoding
        assert (encoding.codec, encoding.window_bits) == kind
        assert isinstance(encoding, Encoding)


@given(st.text() | st.binary() | st.lists(st.integers(-9, 9)))
def test_same_message_is_the_same_bytes_for_every_member(data: object) -> None:
    for codec in (None, JSON, MSGPACK):
        for window_bits in (None, 9, 15):
            encoding = encoding_for(codec, window_bits)
            frames = {encoding.message("r", data, "u1") for _ in range(3)}
            assert len(frames) == 1
            assert type(frames.pop()) is bytes
