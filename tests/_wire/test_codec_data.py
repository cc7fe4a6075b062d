"""Data inside of envelopes: binary data in JSON, and values that one of the encodings, or Python, cannot hold."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from tests._wire.conftest import BAD_STRING, FAR_TOO_DEEP, both, data_of, decode_one, publish_of, unwire, wire
from trioroom._wire.codec import JSON, MSGPACK, Codec
from trioroom._wire.envelopes import Publish
from trioroom._wire.publication import encode_publication
from trioroom.errors import RemoteProtocolError

# -- binary data -----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x01\x02", bytes(range(256))])
def test_binary_data_travels_as_base64_in_json_both_ways(data: bytes) -> None:
    pushed = unwire(JSON, JSON.push("r", data, None))
    assert isinstance(pushed, dict)
    assert pushed["encoding"] == "base64"
    for type in ("publish", "call"):
        request = {"type": type, "id": 1, "room": "r", "data": pushed["data"], "encoding": "base64"}
        assert data_of(JSON, decode_one(JSON, wire(JSON, request))) == data


def test_base64_is_that_of_the_rfc() -> None:
    assert JSON.push("r", b"\x00\x01\xff\xfe", None) == (
        b'{"type":"message","room":"r","data":"AAH//g==","encoding":"base64"}'
    )


@pytest.mark.parametrize("data", [b"", b"\x00\xff"])
def test_binary_data_travels_as_it_is_in_messagepack(data: bytes) -> None:
    request = decode_one(MSGPACK, wire(MSGPACK, {"type": "publish", "room": "r", "data": data}))
    assert data_of(MSGPACK, request) == data
    assert unwire(MSGPACK, MSGPACK.push("r", data, None)) == {"type": "message", "room": "r", "data": data}


@both
def test_base64_is_understood_in_both_encodings(codec: Codec) -> None:
    request = {"type": "publish", "room": "r", "data": "AAEC", "encoding": "base64"}
    assert data_of(codec, decode_one(codec, wire(codec, request))) == b"\x00\x01\x02"


@both
@pytest.mark.parametrize("data", ["A", "AA", "AAA", "AA=C", "A A=", "-_-_", "ä", "AAEC\n"])
def test_data_that_is_not_the_base64_it_claims_to_be_is_an_error(codec: Codec, data: str) -> None:
    request = decode_one(codec, wire(codec, {"type": "publish", "room": "r", "data": data, "encoding": "base64"}))
    with pytest.raises(ValueError, match=r"base64|ASCII"):
        data_of(codec, request)


@both
@pytest.mark.parametrize("data", [1, None, ["AAEC"], {"a": "AAEC"}])
def test_base64_needs_a_string(codec: Codec, data: object) -> None:
    request = decode_one(codec, wire(codec, {"type": "call", "id": 1, "room": "r", "data": data, "encoding": "base64"}))
    with pytest.raises(ValueError, match=r'^"encoding":"base64" needs data that is a string$'):
        data_of(codec, request)


# -- data that not everyone can hold ---------------------------------------------------------------


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
def test_data_that_nests_without_end_is_an_error(codec: Codec) -> None:
    """The recursion that `Codec.decode` came through may be too much a few calls further on."""
    raw = b"[" * FAR_TOO_DEEP + b"]" * FAR_TOO_DEEP if codec is JSON else b"\x91" * FAR_TOO_DEEP + b"\x01"
    with pytest.raises(ValueError, match=r"\w"):
        codec.decode_data(msgspec.Raw(raw), None)


@pytest.mark.parametrize(
    ("codec", "raw"),
    [(JSON, b"1e999999"), (JSON, b"9" * 10_000), (MSGPACK, BAD_STRING), (MSGPACK, b"\x81\x80\x01")],
    ids=["huge float", "huge integer", "not UTF-8", "map as a key"],
)
def test_data_that_python_cannot_hold_is_an_error(codec: Codec, raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        codec.decode_data(msgspec.Raw(raw), None)


NOT_JSON = {
    "extension": b"\xd4\x05a",
    "extension in an array": b"\x91\xd4\x05a",
    "null as a key": b"\x81\xc0\x01",
    "boolean as a key": b"\x81\xc3\x01",
    "array as a key": b"\x81\x90\x01",
}


@pytest.mark.parametrize("raw", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_messagepack_that_json_has_no_words_for_is_an_error(raw: bytes) -> None:
    """Else a room with members of both kinds fails when the publication is encoded for the other kind."""
    with pytest.raises(ValueError, match=r"\w"):
        data_of(MSGPACK, decode_one(MSGPACK, publish_of(raw)))


@pytest.mark.parametrize("number", [1 << 64, -(1 << 63) - 1, 10**30])
def test_integer_that_messagepack_has_no_bytes_for_is_an_error(number: int) -> None:
    """As above; `encode_publication` would be the first to fail."""
    request = decode_one(JSON, f'{{"type":"publish","room":"r","data":[{number}]}}')
    with pytest.raises(ValueError, match=r"\w"):
        data_of(JSON, request)


@both
@pytest.mark.parametrize("number", [(1 << 64) - 1, -(1 << 63)])
def test_largest_integers_pass(codec: Codec, number: int) -> None:
    request = decode_one(codec, wire(codec, {"type": "publish", "room": "r", "data": number}))
    assert data_of(codec, request) == number


def from_below(frames: int, fn: Callable[[], object]) -> object:
    """What ``fn`` returns when it is called from so many frames further on."""
    return from_below(frames - 1, fn) if frames else fn()


@pytest.mark.parametrize(("before", "after"), [("[", "]"), ('{"a":', "}")])
def test_what_nests_as_deep_as_it_may_gets_out_again(before: str, after: str) -> None:
    """Python's recursion limit is none of ours: a hook that publishes, or a fan-out, may be nearer to it."""
    for depth in range(1, 1001):
        try:
            answers = JSON.decode(f'{{"type":"publish","room":"r","data":{before * depth}1{after * depth}}}')
            assert isinstance(answers[0], Publish)
            data = data_of(JSON, answers[0])
        except (RemoteProtocolError, ValueError):
            break
        for encode in (
            lambda data=data: encode_publication(data, None, None),
            lambda data=data: JSON.push("r", data, None),
            lambda data=data: MSGPACK.push("r", data, None),
        ):
            from_below(50, encode)
    assert depth > 10
