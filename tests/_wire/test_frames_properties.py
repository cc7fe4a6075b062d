"""Frames of any kind, cut anywhere: the same events in any chunking, and the same as wsproto reads."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, ParseFailed
from wsproto.frame_protocol import Opcode as TheirOpcode

from tests._wire.conftest import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASK,
    PING,
    PONG,
    TEXT,
    close,
    describe,
    feed,
    frame,
    head,
    in_steps,
    make_parser,
    parse,
)
from trioroom._wire.deflate import compress
from trioroom._wire.frames import Close, Event, FrameParser, Ping, Pong, apply_mask, encode_close, encode_frame
from trioroom._wire.message import Message

# -- streams of any kind ---------------------------------------------------------------------------

MASKS = st.binary(min_size=4, max_size=4)
CUTS = st.lists(st.integers(0, 1 << 20), max_size=10)
SMALL = st.binary(max_size=20)
PAYLOADS = SMALL | st.integers(120, 130).map(bytes) | st.just(b"x" * 65_536)
CLOSE_CODES = st.sampled_from([1000, 1001, 1011, 1013, 3000, 4999])  # wsproto does not know 1014
CONTROLS = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))


def at_cuts(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """``data`` in chunks, some of them empty; a cut beyond the end counts modulo the length."""
    return [data[at:end] for at, end in pairwise([0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)])]


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


@given(payload=st.binary(max_size=100), mask=st.binary(min_size=4, max_size=4))
@example(b"\0\0\0", b"\0\0\0\0")
@example(b"abcd\0\0\0", b"abcd")
def test_mask_is_applied_byte_by_byte(payload: bytes, mask: bytes) -> None:
    masked = apply_mask(payload, mask)
    assert masked == bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    assert apply_mask(masked, mask) == payload


# -- reads that look like something else -----------------------------------------------------------


@pytest.mark.untraced
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


# -- streams that are out of order -----------------------------------------------------------------

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


@settings(max_examples=settings().max_examples * 3)
@given(
    data=st.binary() | ODD_STREAMS | st.tuples(ODD_STREAMS, ODD_HEADS | st.binary(max_size=20)).map(b"".join),
    cuts=CUTS,
    max_message_bytes=st.integers(1, 60),
    max_fragments=st.integers(1, 4),
    inflate=st.booleans(),
    at_once=st.integers(1, 4),
)
@example(b"\x81\xfe", [], 1, 1, False, 1)
def test_any_bytes_are_events_or_one_protocol_error_in_any_chunking_and_any_number_at_once(
    data: bytes, cuts: list[int], max_message_bytes: int, max_fragments: int, inflate: bool, at_once: int
) -> None:
    outcomes = []
    for chunks, few in (([data], 1 << 20), (at_cuts(data, cuts), at_once), (in_steps(data, 1), 1 << 20)):
        parser = FrameParser(max_message_bytes, max_fragments, inflate=inflate)
        events = feed(parser, chunks, few)
        for event in events:
            if isinstance(event, Message):
                assert isinstance(event.data, str | bytes)
                assert len(event.data) <= max_message_bytes
        assert parser.error is None or parser.error.close_code in (1002, 1007, 1009)
        assert not any(isinstance(event, Close) for event in events[:-1])
        assert parser.error is None or not (events and isinstance(events[-1], Close))
        outcomes.append((events, describe(parser.error)))
    assert outcomes[0] == outcomes[1] == outcomes[2]


# -- the same streams through wsproto --------------------------------------------------------------


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


@pytest.mark.untraced
@settings(max_examples=settings().max_examples * 3)
@given(stream=ODD_STREAMS | st.lists(sent(st.just(False)).map(lambda sent: sent.encode()[0])).map(b"".join))
def test_wsproto_reads_the_same(stream: bytes) -> None:
    theirs = TheirReading()
    theirs.feed(stream)
    ours = make_parser()
    assert ours.feed(stream) == theirs.events
    assert (ours.error and ours.error.close_code) == theirs.close_code


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
