"""What a peer can make the frame parser hold: bytes of a message, fragments, memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

import pytest

from tests._wire.conftest import (
    BINARY,
    CLOSE,
    CONTINUATION,
    LIMIT,
    MASK,
    PING,
    PONG,
    TEXT,
    close,
    describe,
    feed,
    fragments,
    frame,
    head,
    in_steps,
    make_parser,
    parse,
    refusal,
    too_big,
)
from trioroom._wire.deflate import compress
from trioroom._wire.frames import FrameParser
from trioroom._wire.message import Message

# -- bytes of a message ----------------------------------------------------------------------------


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


# -- fragments of a message ------------------------------------------------------------------------

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


# -- memory ----------------------------------------------------------------------------------------

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


@pytest.mark.untraced
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_fragments_of_one_byte_cost_no_more_than_their_message(opcode: int) -> None:
    first, middle = frame(opcode, b"x", fin=False), frame(CONTINUATION, b"x", fin=False)
    parser = make_parser(MEMORY_LIMIT)
    held, peak = held_after([first, *[middle] * (MEMORY_LIMIT - 1)], parser)
    assert held < 2 * MEMORY_LIMIT
    assert peak < 3 * MEMORY_LIMIT
    assert len(parse(frame(CONTINUATION), parser)) == 1


@pytest.mark.untraced
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
    feed(FrameParser(MEMORY_LIMIT, inflate=True), chunks)  # what is allocated once, as coverage does, is no parser's
    parser = FrameParser(MEMORY_LIMIT, inflate=True)
    held, _ = held_after([*chunks, *chunks], parser)
    assert held < MEMORY_LIMIT // 4
