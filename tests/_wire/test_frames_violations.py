"""Frames that no peer may send: each is refused, with its close code and in words that tell what to do."""

from __future__ import annotations

import pytest

from tests._wire.conftest import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASK,
    PING,
    PLENTY,
    PONG,
    RESERVED_BIT,
    TEXT,
    close,
    describe,
    fragments,
    frame,
    head,
    make_parser,
    parse,
    refusal,
)
from trioroom._wire.deflate import compress
from trioroom._wire.frames import Ping
from trioroom._wire.message import Message

# -- text that is none -----------------------------------------------------------------------------

NOT_UTF8 = [
    (b"\xff", "invalid start byte"),
    (b"\x80", "invalid start byte"),
    (b"\xc0\xaf", "invalid start byte"),
    (b"\xed\xa0\x80", "invalid continuation byte"),
    (b"\xf4\x90\x80\x80", "invalid continuation byte"),
    (b"\xe2\x28\xa1", "invalid continuation byte"),
]


def not_utf8(reason: str) -> str:
    return f"1007 text is not UTF-8 ({reason}); send it encoded as UTF-8 or as a binary message"


@pytest.mark.parametrize(("payload", "reason"), [*NOT_UTF8, (b"\xe2\x82", "unexpected end of data")])
def test_text_that_is_not_utf_8_is_refused(payload: bytes, reason: str) -> None:
    assert refusal(frame(TEXT, payload)) == not_utf8(reason)
    assert refusal(frame(TEXT, b"a" * 200 + payload)) == not_utf8(reason)
    assert refusal(b"".join(fragments(TEXT, [b"a" + payload[:1], payload[1:]]))) == not_utf8(reason)
    assert refusal(frame(TEXT, compress(payload), rsv=4), inflate=True) == not_utf8(reason)
    assert parse(frame(BINARY, payload)) == [Message(payload)]


@pytest.mark.parametrize(("payload", "reason"), NOT_UTF8)
def test_bad_text_is_refused_before_its_frame_or_message_ends(payload: bytes, reason: str) -> None:
    unfinished_frame = frame(TEXT, b"a" + payload + b"b" * 100)[: -100 or None]
    unfinished_message = frame(TEXT, b"a" + payload, fin=False)
    assert refusal(unfinished_frame) == not_utf8(reason)
    assert refusal(unfinished_message) == not_utf8(reason)


def test_character_that_a_message_ends_in_is_refused_with_the_last_fragment_only() -> None:
    parser = make_parser()
    first, second, last = fragments(TEXT, [b"\xe2", b"\x82", b""])
    assert parser.feed(first + second) == []
    assert parser.error is None
    assert parser.feed(last) == []
    assert describe(parser.error) == not_utf8("unexpected end of data")


# -- heads, and frames out of turn -----------------------------------------------------------------

UNMASKED = "1002 frame is not masked; a client masks all it sends (RFC 6455 section 5.1)"
CONTROL_RESERVED_BIT = "1002 control frame with a reserved bit; send it with RSV1-3 clear"
LARGE_CONTROL = "1002 control frame of more than 125 bytes; send less"
NOT_SHORTEST = "1002 frame length is not in its shortest form (RFC 6455 section 5.2)"
TOP_BIT = "1002 frame length has its top bit set (RFC 6455 section 5.2); send less"


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG])
@pytest.mark.parametrize("length", [0, 5, 125])
def test_unmasked_frame_is_refused(opcode: int, length: int) -> None:
    assert refusal(head(opcode, length, masked=False)) == UNMASKED


@pytest.mark.parametrize("length", [126, 65_536])
def test_long_unmasked_frame_is_refused(length: int) -> None:
    assert refusal(head(BINARY, length, masked=False), PLENTY) == UNMASKED


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("fin", [True, False])
def test_reserved_opcode_is_refused(opcode: int, fin: bool) -> None:
    message = f"1002 opcode {opcode:#x} is reserved; send text, binary or control frames"
    assert refusal(head(opcode, 0, fin=fin)) == message


@pytest.mark.parametrize("rsv", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CONTINUATION])
def test_reserved_bit_is_refused_without_extension(opcode: int, rsv: int) -> None:
    assert refusal(head(opcode, 0, rsv=rsv)) == RESERVED_BIT


@pytest.mark.parametrize("rsv", [1, 2, 3, 5, 6, 7])
def test_compression_gives_no_meaning_to_the_other_reserved_bits(rsv: int) -> None:
    assert refusal(head(TEXT, 0, rsv=rsv), inflate=True) == RESERVED_BIT


@pytest.mark.parametrize("rsv", [1, 2, 4, 7])
@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("inflate", [True, False])
def test_reserved_bit_of_a_control_frame_is_refused(opcode: int, rsv: int, inflate: bool) -> None:
    assert refusal(head(opcode, 0, rsv=rsv), inflate=inflate) == CONTROL_RESERVED_BIT


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_control_frame_in_fragments_is_refused(opcode: int) -> None:
    assert refusal(head(opcode, 0, fin=False)) == "1002 control frame in fragments; send it whole"


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("length", [126, 65_535, 65_536, 1 << 62, 1 << 63])
def test_control_frame_of_more_than_125_bytes_is_refused_at_its_head(opcode: int, length: int) -> None:
    assert refusal(head(opcode, length), PLENTY) == LARGE_CONTROL


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_new_message_inside_a_fragmented_one_is_refused(opcode: int, fin: bool) -> None:
    data = frame(TEXT, b"a", fin=False) + head(opcode, 1, fin=fin)
    assert refusal(data) == "1002 new message inside a fragmented one; send continuation frames"


@pytest.mark.parametrize("fin", [True, False])
def test_continuation_of_no_message_is_refused(fin: bool) -> None:
    message = "1002 continuation of no message; begin with a text or binary frame"
    assert refusal(head(CONTINUATION, 0, fin=fin)) == message
    parser = make_parser()
    assert parser.feed(frame(TEXT, b"a") + head(CONTINUATION, 0, fin=fin)) == [Message("a")]
    assert describe(parser.error) == message


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING])
@pytest.mark.parametrize(("length", "form"), [(0, 126), (125, 126), (0, 127), (126, 127), (65_535, 127)])
def test_length_in_a_longer_form_than_it_needs_is_refused(opcode: int, length: int, form: int) -> None:
    assert refusal(head(opcode, length, form=form) + MASK + bytes(length)) == NOT_SHORTEST


@pytest.mark.parametrize("length", [1 << 63, (1 << 63) + 5, (1 << 64) - 1])
def test_length_with_its_top_bit_set_is_refused(length: int) -> None:
    assert refusal(head(BINARY, length)) == TOP_BIT
    assert refusal(frame(BINARY, b"part", fin=False) + head(CONTINUATION, length)) == TOP_BIT


def test_events_before_an_error_are_kept_and_nothing_comes_after_it() -> None:
    parser = make_parser()
    data = frame(TEXT, b"a") + frame(PING, b"b") + frame(TEXT, b"\xff") + frame(TEXT, b"c")
    assert parser.feed(data) == [Message("a"), Ping(b"b")]
    error = parser.error
    assert error is not None
    assert error.close_code == 1007
    for more in (frame(TEXT, b"d"), frame(CLOSE), frame(3), b"", b"x"):
        assert parser.feed(more) == []
    assert parser.error is error


# -- close frames ----------------------------------------------------------------------------------

BAD_CLOSE = "1002 close frame without a valid code; see RFC 6455 section 7.4"


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535])
def test_close_with_a_code_that_no_peer_may_send_is_refused(code: int) -> None:
    assert refusal(close(code)) == BAD_CLOSE
    assert refusal(close(code, b"reason")) == BAD_CLOSE


@pytest.mark.parametrize("byte", [b"\x03", b"\x00", b"\xff"])
def test_close_of_one_byte_is_refused(byte: bytes) -> None:
    assert refusal(frame(CLOSE, byte)) == BAD_CLOSE


def test_close_of_126_bytes_is_refused() -> None:
    assert refusal(close(1000, b"x" * 124)) == LARGE_CONTROL


@pytest.mark.parametrize(("reason", "why"), [*NOT_UTF8, (b"\xe2\x82", "unexpected end of data")])
def test_close_with_a_reason_that_is_not_utf_8_is_refused(reason: bytes, why: str) -> None:
    assert refusal(close(1000, b"a" + reason)) == not_utf8(why)
