"""Frames: what comes is parsed, in whatever pieces it comes, and what we send is encoded."""

from __future__ import annotations

import gc
import os

import pytest

from tests._wire.conftest import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    close,
    feed,
    fragments,
    frame,
    in_steps,
    make_parser,
    parse,
)
from trioroom._wire.frames import Close, Ping, Pong, encode_close, encode_frame
from trioroom._wire.message import Message

SIZES = [0, 1, 5, 125, 126, 127, 65_535, 65_536, 65_537]
GREETING = "κόσμε €😀"


# -- messages and their masks ----------------------------------------------------------------------


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


def test_pong_without_payload_is_one_alone_and_among_others() -> None:
    pong = bytes.fromhex("8a 80 37 fa 21 3d")
    assert parse(pong) == [Pong(b"")]
    assert parse(frame(TEXT, b"a") + pong * 2) == [Message("a"), Pong(b""), Pong(b"")]


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


# -- text ------------------------------------------------------------------------------------------


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


def test_half_a_character_is_not_carried_into_the_next_message() -> None:
    data = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, "€".encode()) + frame(TEXT, b"b", fin=False)
    assert parse(data + frame(CONTINUATION, b"c")) == [Message("a€"), Message("bc")]


# -- close frames ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4101, 4999])
def test_close_tells_its_code_and_reason(code: int) -> None:
    assert parse(close(code)) == [Close(code, "")]
    assert parse(close(code, "Grüße".encode())) == [Close(code, "Grüße")]


def test_close_without_code_counts_as_1005() -> None:
    assert parse(frame(CLOSE)) == [Close(1005, "")]


def test_close_with_the_longest_reason() -> None:
    assert parse(close(1000, b"x" * 123)) == [Close(1000, "x" * 123)]


def test_nothing_comes_after_a_close() -> None:
    parser = make_parser()
    assert parser.feed(frame(CLOSE) + frame(TEXT, b"a") + frame(3)) == [Close(1005, "")]
    for more in (frame(TEXT, b"a"), frame(CLOSE), frame(3), b"x"):
        assert parser.feed(more) == []
    assert parser.error is None


# -- frames that we send ---------------------------------------------------------------------------


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


def test_close_frame_holds_code_and_reason() -> None:
    assert encode_close(1000) == b"\x88\x02\x03\xe8"
    assert encode_close(4101, "Grüße") == b"\x88\x09\x10\x05" + "Grüße".encode()


def test_close_frame_of_1005_is_empty() -> None:
    assert encode_close(1005) == encode_close(1005, "reason") == b"\x88\x00"


def test_long_reason_of_a_close_frame_is_cut_between_characters() -> None:
    assert encode_close(1000, "x" * 122 + "€") == b"\x88\x7c\x03\xe8" + b"x" * 122
    assert encode_close(1000, "x" * 200) == b"\x88\x7d\x03\xe8" + b"x" * 123


@pytest.mark.parametrize("event", [Ping(b"a"), Pong(b"a"), Close(1000, "a")])
def test_event_stays_as_it_is_and_is_no_work_for_the_garbage_collector(event: Ping | Pong | Close) -> None:
    """There may be many at a time (docs/decisions/0002)."""
    for field in event.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(event, field, b"other")
    assert not gc.is_tracked(event)
