"""What crosses the backplane comes out as it went in, and what another program put there is no surprise."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests._wire.conftest import BAD_STRING, FAR_TOO_DEEP
from tests._wire.test_codec_properties import VALUES
from trioroom._wire.codec import CODECS
from trioroom._wire.frames import Opcode
from trioroom._wire.message import Data
from trioroom._wire.publication import Publication, decode_publication, encode_publication


@pytest.mark.parametrize("data", ["text", b"\x00\xff", None, 1.5, [1, {"a": [True]}], {}])
@pytest.mark.parametrize(("sender", "exclude"), [(None, None), ("u1", None), (None, "u2"), ("u1", "u1")])
def test_publication_crosses_the_backplane_unchanged(data: Data, sender: str | None, exclude: str | None) -> None:
    payload = encode_publication(data, sender, exclude)
    assert isinstance(payload, bytes)
    assert decode_publication(payload) == Publication(data, sender, exclude)


def test_key_crosses_the_backplane_and_must_be_text() -> None:
    assert decode_publication(encode_publication("x", key="cursor 1")) == Publication("x", key="cursor 1")
    with pytest.raises(TypeError, match="key=7 must be a string"):
        encode_publication("x", key=7)  # type: ignore[arg-type]  # which is what is tested


def test_publication_of_something_else_is_a_type_error() -> None:
    for data in (object(), 1j, {"a": [Opcode]}):
        with pytest.raises(TypeError):
            encode_publication(data, None, None)  # type: ignore[arg-type]  # which is what is tested


ODD: list[object] = [{(1, 2): 3}, {"a": [{None: 1}]}, [msgspec.msgpack.Ext(5, b"x")]]
"""What MessagePack has words for and JSON has not."""


@pytest.mark.parametrize("data", ODD, ids=["array as a key", "null as a key below", "extension"])
def test_publication_that_not_all_members_could_be_sent_is_refused(data: object) -> None:
    with pytest.raises(TypeError):
        encode_publication(data)  # type: ignore[arg-type]  # which is what is tested
    with pytest.raises(msgspec.DecodeError):
        decode_publication(msgspec.msgpack.encode([data]))


def test_publication_that_nests_too_deep_is_refused() -> None:
    for levels in range(1, 2_000, 7):
        payload = b"\x91" * (levels + 1) + b"\xc0"
        try:
            data = decode_publication(payload).data
        except msgspec.DecodeError:
            assert levels > 500
        else:  # then members can be sent it
            for codec in CODECS.values():
                codec.push("room", data, "sender", 1)
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(TypeError, match="publish text, bytes or JSON values"):
        encode_publication(endless)  # type: ignore[arg-type]  # which is what is tested


def test_publication_of_text_that_is_no_unicode_is_a_type_error() -> None:
    odd: list[Data] = ["\ud800", ["\ud800"], {"\ud800": 1}]
    for data in odd:
        with pytest.raises(TypeError, match="publish text, bytes or JSON values"):
            encode_publication(data)


def test_publication_of_an_integer_of_more_than_64_bits_is_an_error_of_its_kind() -> None:
    """And no OverflowError, which nobody who calls ``publish`` would think of."""
    with pytest.raises((TypeError, ValueError), match=r"\w"):
        encode_publication([1 << 64], None, None)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x93",
        b"\x90",
        b"\x01",
        b"\x80",
        b"\x93\x01\x01\xc0",
        b"\x93\x01\xc0\xc0\x00",
        b"\x93" + BAD_STRING + b"\xc0\xc0",
        b"\x93\xc0" + BAD_STRING + b"\xc0",
        b"\x93" + b"\x91" * FAR_TOO_DEEP + b"\x01\xc0\xc0",
        b"\x93\x81\x80\x01\xc0\xc0",
        b'{"data":1}',
    ],
)
def test_what_another_program_put_on_the_backplane_is_a_decode_error(payload: bytes) -> None:
    """And no other, or the room's pump would end with it."""
    with pytest.raises(msgspec.DecodeError):
        decode_publication(payload)


def test_publication_from_a_newer_version_may_have_more_fields() -> None:
    assert decode_publication(b"\x95\x01\xc0\xc0\xc0\xa3new") == Publication(1)
    assert decode_publication(b"\x91\x01") == Publication(1)


@given(data=VALUES | st.binary(), sender=st.none() | st.text(), exclude=st.none() | st.text())
def test_any_publication_crosses_the_backplane(data: Data, sender: str | None, exclude: str | None) -> None:
    assert decode_publication(encode_publication(data, sender, exclude)) == Publication(data, sender, exclude)


@given(st.binary() | VALUES.map(msgspec.msgpack.encode))
def test_any_bytes_are_a_publication_or_a_decode_error(payload: bytes) -> None:
    try:
        assert isinstance(decode_publication(payload), Publication)
    except msgspec.DecodeError:
        pass
