from __future__ import annotations

import zlib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom._wire.deflate import DeflateParameters, compress, inflate, negotiate_deflate
from trioroom.errors import RemoteProtocolError

PLENTY = 1 << 20
ANSWER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def negotiate(offer: str) -> DeflateParameters | None:
    return negotiate_deflate([offer])


@pytest.mark.parametrize(
    ("offer", "response"),
    [
        ("permessage-deflate", ANSWER),
        ("permessage-deflate; client_max_window_bits", ANSWER),
        ("permessage-deflate; client_max_window_bits=8", ANSWER),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", ANSWER),
        ("permessage-deflate; server_max_window_bits=9", ANSWER + "; server_max_window_bits=9"),
        ("permessage-deflate; server_max_window_bits=15", ANSWER + "; server_max_window_bits=15"),
        ('permessage-deflate;server_max_window_bits="10"', ANSWER + "; server_max_window_bits=10"),
        (" \tpermessage-deflate ;\tserver_max_window_bits = 10 ", ANSWER + "; server_max_window_bits=10"),
    ],
)
def test_offer_that_can_be_kept_is_answered(offer: str, response: str) -> None:
    accepted = negotiate(offer)
    assert accepted is not None
    assert accepted.response == response


@pytest.mark.parametrize(
    "offer",
    [
        "",
        "x-webkit-deflate-frame",
        "permessage-deflate; no_such_parameter",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover=",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=010",
        "permessage-deflate; server_max_window_bits=٩",
        'permessage-deflate; server_max_window_bits="10',
        'permessage-deflate; server_max_window_bits=10"',
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate;",
        "permessage-deflate; ; client_max_window_bits",
    ],
)
def test_offer_that_cannot_be_kept_is_declined(offer: str) -> None:
    assert negotiate(offer) is None


def test_no_offers_are_declined() -> None:
    assert negotiate_deflate([]) is None


def test_first_offer_that_can_be_kept_wins() -> None:
    offers = [
        "x-other; a=b, permessage-deflate; server_max_window_bits=8,, permessage-deflate; server_max_window_bits=12",
        "permessage-deflate",
    ]
    assert negotiate_deflate(offers) == DeflateParameters(12, True)


@pytest.mark.parametrize("other", ['x; p="a, permessage-deflate, b"', r'x; p="a\", permessage-deflate, b"', 'x; p="'])
def test_what_another_extension_quotes_is_no_offer(other: str) -> None:
    assert negotiate(other) is None


def test_offer_after_a_quoted_parameter_is_seen() -> None:
    assert negotiate('x; p="a, b", permessage-deflate') == DeflateParameters()


@pytest.mark.untraced
def test_offers_in_any_number_and_with_any_quotes_come_to_an_end() -> None:
    """Nothing is timed: a parser that reads its input more than once would not be done in the test's lifetime."""
    size = 200_000
    for piece in (
        ",",
        '"',
        '\\"',
        '",',
        ";",
        "=",
        'a="',
        'permessage-deflate;a="\\',
        "permessage-deflate;,",
        " ",
        "a",
    ):
        assert negotiate(piece * size) is None
    assert negotiate("permessage-deflate" + "; client_max_window_bits" * size) is None
    assert negotiate("permessage-deflate; a" + " " * size + "b") is None
    assert negotiate("," * size + "permessage-deflate") == DeflateParameters()
    assert negotiate_deflate(["x"] * size) is None


@given(st.lists(st.text() | st.text(alphabet='permsag-dflt_;,="\\ \t0189')))
def test_any_text_is_negotiated_without_raising(offers: list[str]) -> None:
    accepted = negotiate_deflate(offers)
    assert accepted is None or 9 <= accepted.server_max_window_bits <= 15


def test_parameters_are_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        DeflateParameters().server_max_window_bits = 9  # type: ignore[misc]  # which is what is tested


@given(payload=st.binary(max_size=4096), bits=st.integers(9, 15), repeats=st.integers(1, 40))
def test_what_is_compressed_inflates_to_itself(payload: bytes, bits: int, repeats: int) -> None:
    payload *= repeats
    compressed = compress(payload, bits)
    assert not compressed.endswith(b"\x00\x00\xff\xff")
    assert inflate(compressed, len(payload)) == payload
    if payload:
        with pytest.raises(RemoteProtocolError) as raised:
            inflate(compressed, len(payload) - 1)
        assert raised.value.close_code == 1009


def test_window_is_no_larger_than_agreed() -> None:
    block = bytes(range(256)) * 2
    payload = block + bytes(4096) + block
    small = zlib.decompressobj(-9)
    assert small.decompress(compress(payload, 9) + b"\x00\x00\xff\xff") == payload


def test_empty_message_is_one_zero_byte() -> None:
    assert compress(b"") == b"\x00"
    assert inflate(b"\x00", 0) == b""


@pytest.mark.parametrize(
    "payload",
    [
        "f2 48 cd c9 c9 07 00",
        "00 05 00 fa ff 48 65 6c 6c 6f 00",
        "f3 48 cd c9 c9 07 00 00",
        "f2 48 05 00 00 00 ff ff ca c9 c9 07 00",
        "f3 48 cd c9 c9 07 00",
        "00 05 00 fa ff 48 65 6c 6c 6f 01",
    ],
    ids=["one block", "stored", "final block", "two blocks", "final block alone", "empty final block"],
)
def test_what_the_rfc_allows_inflates(payload: str) -> None:
    assert inflate(bytes.fromhex(payload), 5) == b"Hello"


def test_bomb_is_refused_at_its_bound() -> None:
    bomb = compress(bytes(50_000_000))
    assert len(bomb) < 65_536
    with pytest.raises(RemoteProtocolError, match=r"more than max_message_bytes=1000; send it in smaller") as raised:
        inflate(bomb, 1000)
    assert raised.value.close_code == 1009


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xff\xff",
        compress(b"Hello, hello, hello")[:-4],
        b"\x00\x09\x00\xf6\xffHello",  # a stored block of nine bytes that has five: our tail is not its data
        bytes.fromhex("f3 48 cd c9 c9 07 00") + b"more",
        b"\x03",  # the first of two bytes of a final block, to which our tail has the rest
    ],
    ids=["nothing", "bad block type", "cut off", "stored block cut off", "after the final block", "final cut off"],
)
def test_corrupt_message_is_refused(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="cannot be inflated") as raised:
        inflate(payload, PLENTY)
    assert raised.value.close_code == 1007


@given(payload=st.binary(), bound=st.integers(0, 64))
def test_any_bytes_inflate_within_the_bound_or_are_refused(payload: bytes, bound: int) -> None:
    try:
        assert len(inflate(payload, bound)) <= bound
    except RemoteProtocolError as exc:
        assert exc.close_code in (1007, 1009)  # noqa: PT017  # either outcome is right
