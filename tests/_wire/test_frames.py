from __future__ import annotations

import gc
import os
import tracemalloc
import zlib
from collections.abc import Iterable, Sequence
from itertools import cycle, pairwise
from operator import xor

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, ParseFailed
from wsproto.frame_protocol import Opcode as TheirOpcode

from trioroom._wire.deflate import compress
from trioroom._wire.frames import (
    Close,
    Event,
    FrameParser,
    Opcode,
    Ping,
    Pong,
    apply_mask,
    encode_close,
    encode_frame,
    encode_masked,
    take_frame,
)
from trioroom._wire.message import Message
from trioroom.errors import RemoteProtocolError

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = Opcode
LIMIT = 1000
PLENTY = 1 << 20
MASK = b"\x37\xfa\x21\x3d"
SIZES = [0, 1, 5, 125, 126, 127, 65_535, 65_536, 65_537]
GREETING = "κόσμε €😀"


# -- frames as a client sends them, made apart from the code under test ---------------------------


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


def make_parser(max_message_bytes: int = PLENTY, max_fragments: int = PLENTY, *, inflate: bool = False) -> FrameParser:
    return FrameParser(max_message_bytes, max_fragments, inflate=inflate)


def feed(parser: FrameParser, chunks: Iterable[bytes]) -> list[Event]:
    return [event for chunk in chunks for event in parser.feed(chunk)]


def in_steps(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


def at_cuts(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """``data`` in chunks, some of them empty; a cut beyond the end counts modulo the length."""
    return [data[at:end] for at, end in pairwise([0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)])]


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


# -- messages and their masks ------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 300])
@pytest.mark.parametrize("size", SIZES)
def test_message_of_any_length_arrives_in_any_steps(size: int, steps: int) -> None:
    text, step = "x" * size, max(1, size // steps)
    data = frame(TEXT, text.encode()) + frame(BINARY, text.encode())
    parser = make_parser()
    assert feed(parser, in_steps(data, step)) == [Message(text), Message(text.encode())]
    assert parser.error is None


def test_single_byte_is_an_event_only_with_the_last_of_its_frame() -> None:
    data = frame(TEXT, b"a")
    parser = make_parser()
    assert [parser.feed(data[at : at + 1]) for at in range(len(data))] == [[]] * 6 + [[Message("a")]]


def test_no_bytes_are_no_event() -> None:
    parser = make_parser()
    assert parser.feed(b"") == []
    assert parser.error is None


def test_frames_of_one_read_become_events_in_their_order() -> None:
    data = frame(TEXT, b"a") + frame(PING, b"b") + frame(BINARY) + frame(PONG, b"c") + frame(TEXT) + frame(CLOSE)
    assert parse(data) == [Message("a"), Ping(b"b"), Message(b""), Pong(b"c"), Message(""), Close(1005, "")]


def test_beginning_of_the_next_frame_waits_for_its_rest() -> None:
    first, second = frame(TEXT, b"first"), frame(BINARY, b"second" * 50)
    for at in range(len(second)):
        parser = make_parser()
        assert parser.feed(first + second[:at]) == [Message("first")]
        assert parser.feed(second[at:]) == [Message(b"second" * 50)]


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04"])
def test_mask_goes_on_where_a_read_ended(mask: bytes) -> None:
    payload = bytes(range(11))
    for rest in (frame(BINARY, payload, mask=mask), frame(BINARY, payload, mask=mask) + frame(PING)):
        for cut in range(len(rest)):
            for next_cut in range(cut, len(rest)):
                parser = make_parser()
                events = feed(parser, [rest[:cut], rest[cut:next_cut], rest[next_cut:]])
                assert events[0] == Message(payload)


def test_each_fragment_has_a_mask_of_its_own() -> None:
    data = (
        frame(BINARY, b"abc", fin=False, mask=b"\x01\x02\x03\x04")
        + frame(CONTINUATION, b"def", fin=False, mask=b"\x05\x06\x07\x08")
        + frame(CONTINUATION, b"gh", mask=b"\0\0\0\0")
    )
    for step in range(1, len(data) + 1):
        assert feed(make_parser(), in_steps(data, step)) == [Message(b"abcdefgh")]


def test_examples_of_the_rfc() -> None:
    assert parse(bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58")) == [Message("Hello")]
    assert parse(bytes.fromhex("8a 85 37 fa 21 3d 7f 9f 4d 51 58")) == [Pong(b"Hello")]


# -- fragments and control frames between them -----------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("payloads", [(b"", b""), (b"a", b""), (b"", b"a"), (b"ab", b"", b"c" * 200, b"d")])
def test_fragments_are_joined(opcode: int, payloads: tuple[bytes, ...]) -> None:
    joined = b"".join(payloads)
    data = b"".join(fragments(opcode, payloads))
    for step in (1, 5, len(data)):
        expected = Message(joined.decode() if opcode == TEXT else joined)
        assert feed(make_parser(), in_steps(data, step)) == [expected]


def test_control_frames_between_fragments_come_first_and_leave_the_message_whole() -> None:
    start, middle, end = fragments(TEXT, [b"Hel", b"l", b"o"])
    data = start + frame(PING, b"1") + middle + frame(PONG, b"2") + frame(PING) + end + frame(BINARY, b"next")
    expected = [Ping(b"1"), Pong(b"2"), Ping(b""), Message("Hello"), Message(b"next")]
    for step in (1, 7, len(data)):
        assert feed(make_parser(), in_steps(data, step)) == expected


def test_close_between_fragments_ends_everything() -> None:
    start, end = fragments(TEXT, [b"Hel", b"lo"])
    assert parse(start + frame(CLOSE, b"\x03\xe8bye") + end) == [Close(1000, "bye")]


def test_control_frame_is_an_event_only_when_whole() -> None:
    data = frame(PING, b"x" * 125)
    parser = make_parser()
    assert feed(parser, in_steps(data[:-1], 1)) == []
    assert parser.feed(data[-1:]) == [Ping(b"x" * 125)]


def test_many_pings_are_as_many_events() -> None:
    assert parse(frame(PING, b"x" * 125) * 500) == [Ping(b"x" * 125)] * 500


# -- text --------------------------------------------------------------------------------------


def test_characters_may_be_cut_by_fragments() -> None:
    payload = GREETING.encode()
    for cut in range(len(payload)):
        for next_cut in range(cut, len(payload)):
            data = b"".join(fragments(TEXT, [payload[:cut], payload[cut:next_cut], payload[next_cut:]]))
            assert parse(data) == [Message(GREETING)]


def test_characters_may_be_cut_by_reads() -> None:
    data = frame(TEXT, GREETING.encode())
    for step in range(1, len(data)):
        assert feed(make_parser(), in_steps(data, step)) == [Message(GREETING)]


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


def test_half_a_character_is_not_carried_into_the_next_message() -> None:
    data = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, "€".encode()) + frame(TEXT, b"b", fin=False)
    assert parse(data + frame(CONTINUATION, b"c")) == [Message("a€"), Message("bc")]


# -- what is refused, with which code and words ---------------------------------------------------------

UNMASKED = "1002 frame is not masked; a client masks all it sends (RFC 6455 section 5.1)"
RESERVED_BIT = "1002 reserved bit is set that no extension gave a meaning; clear RSV1-3"
CONTROL_RESERVED_BIT = "1002 control frame with a reserved bit; send it with RSV1-3 clear"
LARGE_CONTROL = "1002 control frame of more than 125 bytes; send less"
NOT_SHORTEST = "1002 frame length is not in its shortest form (RFC 6455 section 5.2)"
TOP_BIT = "1002 frame length has its top bit set (RFC 6455 section 5.2); send less"
BAD_CLOSE = "1002 close frame without a valid code; see RFC 6455 section 7.4"


def too_big(size: int, bound: int = LIMIT) -> str:
    return f"1009 message of {size} bytes exceeds max_message_bytes={bound}; send it in smaller messages"


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


@pytest.mark.parametrize("length", [LIMIT + 1, 65_536, 1 << 31, 1 << 32, (1 << 63) - 1])
def test_large_frame_is_refused_at_its_head(length: int) -> None:
    for opcode in (TEXT, BINARY):
        assert refusal(head(opcode, length)) == too_big(length)
        assert refusal(head(opcode, length, fin=False)) == too_big(length)
    assert refusal(frame(BINARY, b"part", fin=False) + head(CONTINUATION, length)) == too_big(length + 4)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_message_of_the_largest_size_passes_and_one_byte_more_does_not(opcode: int) -> None:
    for size in (1, 125, 126, 65_535, 65_536):
        for payloads in ([b"x" * size], [b"", b"x" * size], [b"x", b"x" * (size - 1), b""]):
            data = b"".join(fragments(opcode, payloads))
            for step in (7, len(data)):
                assert len(feed(make_parser(size), in_steps(data, step))) == 1
                parser = make_parser(size - 1)
                assert feed(parser, in_steps(data, step)) == []
                assert describe(parser.error) == too_big(size, size - 1)


def test_frames_of_the_largest_size_do_not_add_up_to_a_larger_message() -> None:
    parser = make_parser(LIMIT)
    assert parser.feed(frame(BINARY, bytes(LIMIT), fin=False)) == []
    assert parser.error is None
    assert parser.feed(head(CONTINUATION, LIMIT, fin=False)) == []
    assert describe(parser.error) == too_big(2 * LIMIT)


def test_size_is_counted_anew_for_each_message() -> None:
    data = b"".join(fragments(BINARY, [bytes(600), bytes(400)])) + frame(BINARY, bytes(LIMIT))
    assert parse(data * 3, make_parser(LIMIT)) == [Message(bytes(LIMIT))] * 6


TOO_MANY = "1009 message of more than max_fragments=3 frames; send fewer, larger ones"


@pytest.mark.parametrize("payload", [b"", b"x"])
def test_fragments_are_counted_even_if_they_are_empty(payload: bytes) -> None:
    start, middle, end = fragments(BINARY, [payload] * 3)
    assert parse(start + middle + end, make_parser(LIMIT, 3)) == [Message(payload * 3)]
    assert refusal(start + middle * 2 + head(CONTINUATION, 0), LIMIT, 3) == TOO_MANY
    assert refusal(start + middle * 2 + head(CONTINUATION, 0, fin=False), LIMIT, 3) == TOO_MANY


def test_endless_empty_fragments_end_at_the_default_bound() -> None:
    parser = FrameParser(LIMIT)
    assert parser.feed(frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 63) == []
    assert parser.error is None
    assert parser.feed(frame(CONTINUATION, fin=False)) == []
    assert describe(parser.error) == TOO_MANY.replace("=3", "=64")


def test_only_the_frames_of_one_message_are_counted() -> None:
    first, middle, last = fragments(BINARY, [b"a", b"b", b"c"])
    message = first + frame(PING) * 5 + middle + frame(PONG) * 5 + last
    events = parse(message + frame(TEXT) * 5 + message, make_parser(LIMIT, 3))
    assert [event for event in events if isinstance(event, Message)] == [
        Message(b"abc"), *[Message("")] * 5, Message(b"abc")
    ]  # fmt: skip


def test_single_frames_pass_where_fragments_do_not() -> None:
    parser = make_parser(LIMIT, 1)
    assert parser.feed(frame(TEXT, b"a") + frame(BINARY, b"b", fin=False)) == [Message("a")]
    assert parser.error is None
    parser.feed(head(CONTINUATION, 0))
    assert describe(parser.error) == TOO_MANY.replace("=3", "=1")


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


# -- close frames --------------------------------------------------------------------------------


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4101, 4999])
def test_close_tells_its_code_and_reason(code: int) -> None:
    assert parse(close(code)) == [Close(code, "")]
    assert parse(close(code, "Grüße".encode())) == [Close(code, "Grüße")]


def test_close_without_code_counts_as_1005() -> None:
    assert parse(frame(CLOSE)) == [Close(1005, "")]


def test_close_with_the_longest_reason() -> None:
    assert parse(close(1000, b"x" * 123)) == [Close(1000, "x" * 123)]


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


def test_nothing_comes_after_a_close() -> None:
    parser = make_parser()
    assert parser.feed(frame(CLOSE) + frame(TEXT, b"a") + frame(3)) == [Close(1005, "")]
    for more in (frame(TEXT, b"a"), frame(CLOSE), frame(3), b"x"):
        assert parser.feed(more) == []
    assert parser.error is None


# -- compressed messages (RFC 7692) ---------------------------------------------------------------

INFLATED_TOO_BIG = f"1009 message inflates to more than max_message_bytes={LIMIT}; send it in smaller messages"


@pytest.mark.parametrize("size", [0, 1, 100, LIMIT])
def test_compressed_messages_arrive_inflated(size: int) -> None:
    text = ("€uro " * size)[: size // 3]
    data = frame(TEXT, compress(text.encode()), rsv=4) + frame(BINARY, compress(bytes(size)), rsv=4)
    for step in (1, len(data)):
        parser = make_parser(LIMIT, inflate=True)
        assert feed(parser, in_steps(data, step)) == [Message(text), Message(bytes(size))]
        assert parser.error is None


def test_compressed_fragments_carry_the_bit_on_the_first_frame_only() -> None:
    payload = compress(b"Hello" * 20)
    for cut in range(len(payload) + 1):
        first, last = fragments(TEXT, [payload[:cut], payload[cut:]], rsv=4)
        assert parse(first + frame(PING) + last, make_parser(inflate=True)) == [Ping(b""), Message("Hello" * 20)]


def test_reserved_bit_on_a_later_fragment_is_refused() -> None:
    for rsv in (0, 4):
        data = frame(TEXT, compress(b"ab"), fin=False, rsv=rsv) + frame(CONTINUATION, compress(b"c"), rsv=4)
        assert refusal(data, inflate=True) == RESERVED_BIT


def test_compression_is_off_unless_agreed_on() -> None:
    parser = FrameParser(LIMIT)
    assert parser.feed(frame(TEXT, compress(b"packed"), rsv=4)) == []
    assert describe(parser.error) == RESERVED_BIT


def test_messages_may_go_uncompressed_where_compression_is_agreed_on() -> None:
    data = frame(TEXT, b"plain") + frame(TEXT, compress(b"packed"), rsv=4) + b"".join(fragments(BINARY, [b"a", b"b"]))
    assert parse(data, make_parser(inflate=True)) == [Message("plain"), Message("packed"), Message(b"ab")]


def test_each_compressed_message_stands_alone() -> None:
    """We agree on ``client_no_context_takeover``: a message that refers to the one before is corrupt."""
    deflater = zlib.compressobj(wbits=-15)
    first, second = (
        (deflater.compress(b"Hello, hello, hello") + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(2)
    )
    parser = make_parser(inflate=True)
    assert parser.feed(frame(TEXT, first, rsv=4) + frame(TEXT, second, rsv=4)) == [Message("Hello, hello, hello")]
    assert parser.error is not None
    assert parser.error.close_code == 1007


def test_bomb_is_refused_at_its_bound() -> None:
    for size in (LIMIT + 1, 50_000):
        payload = compress(bytes(size))
        assert len(payload) < 100
        assert refusal(frame(BINARY, payload, rsv=4), inflate=True) == INFLATED_TOO_BIG
        assert refusal(b"".join(fragments(TEXT, in_steps(payload, 10), rsv=4)), inflate=True) == INFLATED_TOO_BIG


def test_bomb_with_a_corrupt_tail_is_refused_as_a_bomb() -> None:
    assert refusal(frame(BINARY, compress(bytes(50_000)) + b"\xff" * 50, rsv=4), inflate=True) == INFLATED_TOO_BIG


@pytest.mark.parametrize("payload", [b"", b"\xff" * 20, compress(b"Hello, hello, hello")[:-4]])
def test_corrupt_compressed_message_is_refused(payload: bytes) -> None:
    message = refusal(frame(TEXT, payload, rsv=4), inflate=True)
    assert message.startswith("1007 compressed message cannot be inflated (")


def test_large_compressed_frame_is_refused_at_its_head() -> None:
    data = head(BINARY, 1 << 32, rsv=4)
    assert refusal(data, inflate=True) == too_big(1 << 32)


def test_message_of_the_largest_size_passes_even_if_compression_makes_it_longer() -> None:
    """``max_message_bytes`` is about the inflated message: one that does not compress comes a little longer."""
    message = b"".join(zlib.crc32(at.to_bytes(4, "big")).to_bytes(4, "big") for at in range(16_384))
    payload = compress(message)
    assert 65_536 < len(payload) < 65_600
    for parts in ([payload], in_steps(payload, 10_000)):
        data = b"".join(fragments(BINARY, parts, rsv=4))
        for step in (4096, len(data)):
            parser = FrameParser(65_536, inflate=True)
            assert feed(parser, in_steps(data, step)) == [Message(message)]


def test_frames_of_one_compressed_message_do_not_add_up_for_ever() -> None:
    """Whatever the bound is that a compressed message has on its way, it has one."""
    parser = make_parser(LIMIT, inflate=True)
    feed(parser, [frame(BINARY, bytes(LIMIT), fin=False, rsv=4), head(CONTINUATION, LIMIT)])
    assert describe(parser.error) == too_big(2 * LIMIT)


# -- memory ------------------------------------------------------------------------------------------

MEMORY_LIMIT = 1 << 14


def held_after(chunks: Iterable[bytes], parser: FrameParser) -> tuple[int, int]:
    """Bytes that ``parser`` holds on to after ``chunks``, and the most that were in use meanwhile."""
    tracemalloc.start()
    try:
        for chunk in chunks:
            parser.feed(chunk)
        return tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_fragments_of_one_byte_cost_no_more_than_their_message(opcode: int) -> None:
    first, middle = frame(opcode, b"x", fin=False), frame(CONTINUATION, b"x", fin=False)
    parser = make_parser(MEMORY_LIMIT)
    held, peak = held_after([first, *[middle] * (MEMORY_LIMIT - 1)], parser)
    assert held < 2 * MEMORY_LIMIT
    assert peak < 3 * MEMORY_LIMIT
    assert len(parse(frame(CONTINUATION), parser)) == 1


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_payload_of_one_byte_a_read_costs_no_more_than_its_message(opcode: int) -> None:
    data = frame(opcode, b"x" * MEMORY_LIMIT)[:-1]
    parser = make_parser(MEMORY_LIMIT)
    held, peak = held_after((data[at : at + 1] for at in range(len(data))), parser)
    assert held < 2 * MEMORY_LIMIT
    assert peak < 3 * MEMORY_LIMIT
    assert len(parse(frame(opcode, b"x")[-1:], parser)) == 1


def test_announced_length_costs_nothing_before_its_bytes_come() -> None:
    held, peak = held_after([head(BINARY, 1 << 30), MASK, b"x"], make_parser(1 << 30))
    assert held < 4096
    assert peak < 8192


LARGE = b"x" * MEMORY_LIMIT
UNDER_WAY = frame(TEXT, LARGE, fin=False)


@pytest.mark.parametrize(
    "chunks",
    [
        [UNDER_WAY, frame(CLOSE)],
        [UNDER_WAY, close(999)],
        [UNDER_WAY, head(3, 0)],
        [UNDER_WAY, head(CONTINUATION, 1)],
        [UNDER_WAY, frame(CONTINUATION, b"\xff")],
        [frame(TEXT, LARGE[1:] + b"\xff")],
        [frame(BINARY, compress(LARGE + b"x"), rsv=4)],
    ],
    ids=["close", "bad close", "reserved opcode", "too big", "bad text", "bad text at once", "bomb"],
)
def test_connection_that_is_over_holds_no_message(chunks: list[bytes]) -> None:
    """Not by way of the error's traceback either: the parser lives on while the closing handshake takes its time."""
    parser = FrameParser(MEMORY_LIMIT, inflate=True)
    held, _ = held_after([*chunks, *chunks], parser)
    assert held < MEMORY_LIMIT // 4


# -- frames that we send ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opcode", "size", "expected"),
    [
        (TEXT, 5, "81 05"),
        (PONG, 0, "8a 00"),
        (BINARY, 125, "82 7d"),
        (BINARY, 126, "82 7e 00 7e"),
        (BINARY, 256, "82 7e 01 00"),
        (BINARY, 65_535, "82 7e ff ff"),
        (BINARY, 65_536, "82 7f 00 00 00 00 00 01 00 00"),
    ],
)
def test_frame_has_the_shortest_head(opcode: int, size: int, expected: str) -> None:
    payload = os.urandom(size)
    assert encode_frame(opcode, payload) == bytes.fromhex(expected) + payload


def test_compressed_frame_carries_the_reserved_bit() -> None:
    assert encode_frame(TEXT, b"ab", compressed=True) == b"\xc1\x02ab"


@pytest.mark.parametrize("size", SIZES)
def test_masked_frame_is_one_that_a_client_would_send(size: int) -> None:
    payload = os.urandom(size)
    assert encode_masked(BINARY, payload, MASK) == frame(BINARY, payload)
    assert encode_masked(TEXT, payload) == frame(TEXT, payload, mask=bytes(4))


def test_close_frame_holds_code_and_reason() -> None:
    assert encode_close(1000) == b"\x88\x02\x03\xe8"
    assert encode_close(4101, "Grüße") == b"\x88\x09\x10\x05" + "Grüße".encode()


def test_close_frame_of_1005_is_empty() -> None:
    assert encode_close(1005) == encode_close(1005, "reason") == b"\x88\x00"


def test_long_reason_of_a_close_frame_is_cut_between_characters() -> None:
    assert encode_close(1000, "x" * 122 + "€") == b"\x88\x7c\x03\xe8" + b"x" * 122
    assert encode_close(1000, "x" * 200) == b"\x88\x7d\x03\xe8" + b"x" * 123


@pytest.mark.parametrize("size", SIZES)
def test_frame_is_taken_only_when_whole(size: int) -> None:
    payload = os.urandom(size)
    data = encode_frame(BINARY, payload)
    for at in {0, 1, 2, 3, 4, 9, 10, len(data) - 1} & set(range(len(data))):
        assert take_frame(data[:at]) is None
    assert take_frame(data) == (BINARY, payload, b"")
    assert take_frame(data + b"next") == (BINARY, payload, b"next")
    view = take_frame(memoryview(data + b"next"))
    assert view is not None
    assert isinstance(view[1], memoryview)
    assert (view[0], bytes(view[1]), bytes(view[2])) == (BINARY, payload, b"next")


@given(payload=st.binary(max_size=100), mask=st.binary(min_size=4, max_size=4))
@example(b"\0\0\0", b"\0\0\0\0")
@example(b"abcd\0\0\0", b"abcd")
def test_mask_is_applied_byte_by_byte(payload: bytes, mask: bytes) -> None:
    masked = apply_mask(payload, mask)
    assert masked == bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    assert apply_mask(masked, mask) == payload


@pytest.mark.parametrize("event", [Ping(b"a"), Pong(b"a"), Close(1000, "a")])
def test_event_stays_as_it_is_and_is_no_work_for_the_garbage_collector(event: Ping | Pong | Close) -> None:
    """There may be many at a time (docs/decisions/0002)."""
    for field in event.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(event, field, b"other")
    assert not gc.is_tracked(event)


# -- streams of any kind ------------------------------------------------------------------------------

MASKS = st.binary(min_size=4, max_size=4)
CUTS = st.lists(st.integers(0, 1 << 20), max_size=10)
SMALL = st.binary(max_size=20)
PAYLOADS = SMALL | st.integers(120, 130).map(bytes) | st.just(b"x" * 65_536)
CLOSE_CODES = st.sampled_from([1000, 1001, 1011, 1013, 3000, 4999])  # wsproto does not know 1014
CONTROLS = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))


@attrs.frozen
class Sent:
    """One message or control frame of a client, and how it is cut."""

    data: str | bytes
    compressed: bool
    cuts: list[int]
    masks: list[bytes]
    between: tuple[int, bytes] | None
    """A control frame behind every fragment but the last."""

    def encode(self) -> tuple[bytes, list[Event]]:
        opcode, payload = (TEXT, self.data.encode()) if isinstance(self.data, str) else (BINARY, self.data)
        parts = at_cuts(compress(payload) if self.compressed else payload, self.cuts)
        stream, events = b"", list[Event]()
        for at, part in enumerate(parts):
            last, rsv = at == len(parts) - 1, 4 if self.compressed and not at else 0
            mask = self.masks[at % len(self.masks)]
            stream += frame(CONTINUATION if at else opcode, part, fin=last, rsv=rsv, mask=mask)
            if not last and self.between is not None:
                stream += frame(*self.between, mask=mask)
                events.append(control_event(*self.between))
        return stream, [*events, Message(self.data)]


def control_event(opcode: int, payload: bytes) -> Event:
    return Ping(payload) if opcode == PING else Pong(payload)


def sent(compressed: st.SearchStrategy[bool]) -> st.SearchStrategy[Sent]:
    return st.builds(
        Sent,
        data=st.text(max_size=20) | PAYLOADS,
        compressed=compressed,
        cuts=st.lists(st.integers(0, 1 << 20), max_size=4),
        masks=st.lists(MASKS, min_size=1, max_size=3),
        between=st.none() | CONTROLS,
    )


@settings(deadline=None)
@given(
    messages=st.lists(sent(st.booleans()), max_size=5),
    closing=st.none() | st.tuples(CLOSE_CODES, st.text(max_size=30)),
    cuts=CUTS,
)
def test_what_a_client_sends_arrives_in_any_chunking(
    messages: list[Sent], closing: tuple[int, str] | None, cuts: list[int]
) -> None:
    stream, expected = b"", list[Event]()
    for message in messages:
        data, events = message.encode()
        stream += data
        expected += events
    if closing is not None:
        stream += close(closing[0], closing[1].encode())
        expected.append(Close(*closing))
    for chunks in ([stream], at_cuts(stream, cuts), in_steps(stream, 1 if len(stream) < 1000 else 997)):
        parser = make_parser(inflate=True)
        assert feed(parser, chunks) == expected
        assert parser.error is None


@pytest.mark.parametrize("first", [0x81, 0x82, 0x01, 0x89, 0xC1])
@pytest.mark.parametrize("size", [2, 5, 6, 7, 8, 10, 130, 131, 132, 133, 134, 135, 140])
def test_read_that_looks_like_one_whole_frame_is_parsed_like_any_other(first: int, size: int) -> None:
    lengths = {0, 1, 2, 4, 124, 125, 126, 127, *range(max(size - 15, 0), size)} & set(range(128))
    for second in [*lengths, *(0x80 | length for length in lengths)]:
        for filler in (b"\0\0", bytes([second, second]), (size - 8).to_bytes(2, "big", signed=True), b"\x80\x85"):
            data = (bytes([first, second]) + filler * 70)[:size]
            whole, bytewise = make_parser(), make_parser()
            assert whole.feed(data) == feed(bytewise, in_steps(data, 1))
            assert describe(whole.error) == describe(bytewise.error)


@pytest.mark.parametrize("size", [125, 126, 256, 257, 258, 512, 513, 514, 769, 1026])
def test_part_of_a_frame_is_no_message_however_much_it_looks_like_one(size: int) -> None:
    for mask in (MASK, b"\xfe\xfe\xfe\xfe", size.to_bytes(2, "big") * 2):
        data = frame(BINARY, bytes(size), mask=mask)
        for cut in range(len(data)):
            parser = make_parser()
            assert parser.feed(data[:cut]) == []
            assert parser.feed(data[cut:] + data[:cut]) == [Message(bytes(size))]


@pytest.mark.parametrize(
    "before",
    [frame(TEXT, b"a", fin=False), frame(TEXT, b"abc")[:-1], frame(TEXT)[:1], frame(BINARY)[:3], head(BINARY, 200)[:3]],
    ids=["a fragment", "a payload", "a head", "a mask", "a length"],
)
@pytest.mark.parametrize("size", [0, 5, 200])
def test_read_of_one_whole_frame_is_none_after_the_beginning_of_another(before: bytes, size: int) -> None:
    read = frame(TEXT, b"x" * size)
    parser, bytewise = make_parser(), make_parser()
    assert feed(parser, [before, read]) == feed(bytewise, in_steps(before + read, 1))
    assert describe(parser.error) == describe(bytewise.error)


UTF8_PIECES = st.sampled_from([b"a", "é".encode(), "€".encode(), "😀".encode(), b"\xe2", b"\x82", b"\xac", b"\xff"])
ODD_FRAMES = st.builds(
    lambda opcode, payload, fin, rsv, mask: frame(opcode, payload, fin=fin, rsv=rsv, mask=mask),
    opcode=st.sampled_from([TEXT, TEXT, BINARY, *[CONTINUATION] * 3, PING, PONG, CLOSE]) | st.integers(0, 15),
    payload=SMALL
    | st.lists(UTF8_PIECES, max_size=6).map(b"".join)
    | SMALL.map(compress)
    | CLOSE_CODES.map(lambda code: code.to_bytes(2, "big") + b"reason")
    | st.sampled_from([bytes(125), bytes(126)]),
    fin=st.booleans(),
    rsv=st.sampled_from([0] * 8 + [4] * 3 + [1, 2]),
    mask=MASKS,
)
ODD_HEADS = st.builds(
    lambda opcode, length, fin, masked, form: head(opcode, length, fin=fin, masked=masked, form=form),
    opcode=st.integers(0, 15),
    length=st.sampled_from([0, 125, 126, 65_535]),
    fin=st.booleans(),
    masked=st.booleans(),
    form=st.sampled_from([126, 127]),
)
ODD_STREAMS = st.lists(ODD_FRAMES, max_size=8).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(
    data=st.binary() | ODD_STREAMS | st.tuples(ODD_STREAMS, ODD_HEADS | st.binary(max_size=20)).map(b"".join),
    cuts=CUTS,
    max_message_bytes=st.integers(1, 60),
    max_fragments=st.integers(1, 4),
    inflate=st.booleans(),
)
@example(b"\x81\xfe", [], 1, 1, False)
def test_any_bytes_are_events_or_one_protocol_error_in_any_chunking(
    data: bytes, cuts: list[int], max_message_bytes: int, max_fragments: int, inflate: bool
) -> None:
    outcomes = []
    for chunks in ([data], at_cuts(data, cuts), in_steps(data, 1)):
        parser = FrameParser(max_message_bytes, max_fragments, inflate=inflate)
        events = feed(parser, chunks)
        for event in events:
            if isinstance(event, Message):
                assert isinstance(event.data, str | bytes)
                assert len(event.data) <= max_message_bytes
        assert parser.error is None or parser.error.close_code in (1002, 1007, 1009)
        assert not any(isinstance(event, Close) for event in events[:-1])
        assert parser.error is None or not (events and isinstance(events[-1], Close))
        outcomes.append((events, describe(parser.error)))
    assert outcomes[0] == outcomes[1] == outcomes[2]


# -- the same streams through wsproto -------------------------------------------------------------


class TheirReading:
    """Messages and control frames as wsproto, on the server's side, reads them."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.close_code: int | None = None
        self._protocol = FrameProtocol(client=False, extensions=[])
        self._parts: list[str | bytes] = []

    def feed(self, data: bytes) -> None:
        self._protocol.receive_bytes(data)
        try:
            for received in self._protocol.received_frames():
                self._take(received.opcode, received.payload, received.message_finished)
        except ParseFailed as exc:
            self.close_code = int(exc.code)

    def _take(self, opcode: TheirOpcode, payload: object, finished: bool) -> None:
        if opcode is TheirOpcode.CLOSE:
            assert isinstance(payload, tuple)
            self.events.append(Close(int(payload[0]), payload[1]))
        elif opcode.iscontrol():
            assert isinstance(payload, bytes)
            self.events.append(control_event(opcode, payload))
        else:
            assert isinstance(payload, str | bytes)
            self._parts.append(payload)
            if finished:
                empty = self._parts[0][:0]
                self.events.append(Message(empty.join(self._parts)))  # type: ignore[arg-type]  # all of one kind
                self._parts.clear()


@settings(max_examples=300, deadline=None)
@given(stream=ODD_STREAMS | st.lists(sent(st.just(False)).map(lambda sent: sent.encode()[0])).map(b"".join))
def test_wsproto_reads_the_same(stream: bytes) -> None:
    theirs = TheirReading()
    theirs.feed(stream)
    ours = make_parser()
    assert ours.feed(stream) == theirs.events
    assert (ours.error and ours.error.close_code) == theirs.close_code


@settings(deadline=None)
@given(messages=st.lists(st.text(max_size=40) | PAYLOADS, max_size=5), cuts=st.lists(st.integers(0, 40), max_size=3))
def test_what_wsproto_compresses_is_inflated(messages: list[str | bytes], cuts: list[int]) -> None:
    agreed = PerMessageDeflate(client_no_context_takeover=True, server_no_context_takeover=True)
    agreed.finalize("permessage-deflate; client_no_context_takeover; server_no_context_takeover")
    client = FrameProtocol(client=True, extensions=[agreed])
    stream = b""
    for message in messages:
        bounds = [0, *sorted(cuts), max(len(message), 40)]
        parts = [message[at:end] for at, end in pairwise(bounds)]
        for at, part in enumerate(parts):
            stream += client.send_data(part, fin=at == len(parts) - 1)
    assert parse(stream, make_parser(inflate=True)) == [Message(message) for message in messages]


@settings(deadline=None)
@given(payload=PAYLOADS, text=st.text(max_size=200), code=CLOSE_CODES)
def test_wsproto_reads_what_we_send(payload: bytes, text: str, code: int) -> None:
    client = FrameProtocol(client=True, extensions=[])
    client.receive_bytes(
        encode_frame(BINARY, payload)
        + encode_frame(TEXT, text.encode())
        + encode_frame(PING, payload[:125])
        + encode_close(code, text)
    )
    received = [(int(got.opcode), got.payload) for got in client.received_frames()]
    assert received[:3] == [(BINARY, payload), (TEXT, text), (PING, payload[:125])]
    opcode, closing = received[3]
    assert opcode == CLOSE
    assert isinstance(closing, tuple)
    assert closing[0] == code
    assert text.startswith(closing[1])
