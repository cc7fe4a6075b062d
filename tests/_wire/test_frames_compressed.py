"""Frames of compressed messages (RFC 7692): they arrive inflated, and never larger than they may."""

from __future__ import annotations

import zlib

import pytest

from tests._wire.conftest import (
    BINARY,
    CONTINUATION,
    LIMIT,
    PING,
    RESERVED_BIT,
    TEXT,
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
from trioroom._wire.frames import FrameParser, Ping
from trioroom._wire.message import Message

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
