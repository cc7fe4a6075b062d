"""Operations however they are cut, and what is no NATS."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trioroom.backplane.nats.protocol import (
    MAX_LINE,
    BadProtocol,
    Control,
    Event,
    Message,
    Parser,
    pack_headers,
    pack_publication,
    pack_subscription,
    pack_unsubscription,
)

WORDS = st.text("abc.XYZ/=_-09", min_size=1, max_size=20).map(str.encode)
PAYLOADS = st.one_of(
    st.binary(max_size=50), st.sampled_from([b"", b"\r\n", b"MSG a 1 0\r\n\r\n", b"PING\r\n", b"x" * 70_000])
)
HEADERS = st.dictionaries(
    st.text("abcXYZ-", min_size=1, max_size=10), st.text("abc :=/%ä", max_size=20).map(str.strip), max_size=3
)
CONTROLS = st.sampled_from(
    [
        (b"PING\r\n", Control(b"PING")),
        (b"PONG\r\n", Control(b"PONG")),
        (b"+OK\r\n", Control(b"+OK")),
        (b"-ERR 'Slow Consumer'\r\n", Control(b"-ERR", b"'Slow Consumer'")),
        (b"ping \r\n", Control(b"PING")),
        (b'INFO {"max_payload":1}\r\n', Control(b"INFO", b'{"max_payload":1}')),
    ]
)


def told(event: Event) -> object:
    """What can be compared."""
    if isinstance(event, Control):
        return event
    return event.subject, event.sid, event.reply, dict(event.headers), event.payload


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, object]:
    subject, reply, payload = draw(WORDS), draw(st.none() | WORDS), draw(PAYLOADS)
    headers, sid = draw(HEADERS), draw(st.integers(0, 2**40))
    words = b" ".join([subject, b"%d" % sid, *([] if reply is None else [reply])])
    head = pack_headers(headers)
    if head:
        line = b"HMSG %b %d %d\r\n" % (words, len(head), len(head) + len(payload))
    else:
        line = b"MSG %b %d\r\n" % (words, len(payload))
    return line + head + payload + b"\r\n", (subject, sid, reply, headers, payload)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


@given(st.lists(st.one_of(CONTROLS, messages()), max_size=6), st.lists(st.integers(0, 1 << 20), max_size=12))
def test_any_pieces_give_the_same_operations(operations: list[tuple[bytes, object]], places: list[int]) -> None:
    parser = Parser()
    seen: list[object] = []
    for piece in cut(b"".join(data for data, _ in operations), places):
        seen += [told(event) for event in parser.feed(piece)]
    assert seen == [expected for _, expected in operations]


@given(st.lists(messages(), min_size=1, max_size=3))
def test_one_byte_at_a_time_too(operations: list[tuple[bytes, object]]) -> None:
    parser, seen = Parser(), list[object]()
    data = b"".join(data for data, _ in operations)
    for place in range(min(len(data), 2_000)):
        seen += [told(event) for event in parser.feed(data[place : place + 1])]
    seen += [told(event) for event in parser.feed(data[2_000:])]
    assert seen == [expected for _, expected in operations]


@given(st.lists(st.one_of(st.binary(max_size=200), st.sampled_from([b"MSG ", b"HMSG a 1 ", b"\r\n", b" 5", b"-1"]))))
@example([b"MSG a 1 -1\r\n"])
@example([b"HMSG a 1 9 5\r\n"])
def test_whatever_comes_is_operations_or_no_nats(pieces: list[bytes]) -> None:
    parser = Parser(max_message=10_000)
    try:
        for piece in pieces:
            for event in parser.feed(piece):
                told(event)
                if isinstance(event, Message):
                    repr((event, event.status, event.description))
    except BadProtocol:
        pass


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it sent b'HTTP/1.1 400 Bad Request'"),
        (b"\r\n", "it sent b''"),
        (b"MSG a\r\n", "b'MSG a' begins no message"),
        (b"MSG a x 1\r\n", "begins no message"),
        (b"MSG a 1 b c 1\r\n", "begins no message"),
        (b"MSG a 1 -1\r\n", "begins no message"),
        (b"HMSG a 1 5 4\r\n", "begins no message"),
        (b"MSG a 1 2\r\nabcd", "a message does not end where it should"),
        (b"MSG a 1 %d\r\n" % (1 << 27), "a message has 134217728 bytes"),
        (b"MSG " + b"a" * MAX_LINE, f"a line is longer than {MAX_LINE} bytes"),
    ],
)
def test_what_is_no_nats_is_told(data: bytes, reason: str) -> None:
    with pytest.raises(BadProtocol, match=r"^what answers there is no NATS server: ") as raised:
        Parser().feed(data)
    assert reason in str(raised.value)


def test_large_message_is_put_together_once() -> None:
    parser = Parser()
    assert parser.feed(b"MSG a 1 1000000\r\n") == []
    piece = b"x" * 1_000
    for _ in range(1_000):
        assert parser.feed(piece) == []
    [message] = parser.feed(b"\r\n")
    assert isinstance(message, Message)
    assert message.payload == piece * 1_000


def test_status_is_no_header_and_goes_with_its_description() -> None:
    head = b"NATS/1.0 503 No Responders\r\n\r\n"
    [message] = Parser().feed(b"HMSG a 1 %d %d\r\n%b\r\n" % (len(head), len(head), head))
    assert isinstance(message, Message)
    assert (message.status, message.description, message.headers) == (503, "No Responders", {})
    [plain] = Parser().feed(b"MSG a 1 0\r\n\r\n")
    assert isinstance(plain, Message)
    assert (plain.status, plain.description) == (None, "")


def test_what_is_packed_is_as_the_protocol_has_it() -> None:
    assert pack_publication(b"a", b"r", b"", b"xy") == b"PUB a r 2\r\nxy\r\n"
    head = pack_headers({"Nats-Msg-Id": "ä"})
    assert head == "NATS/1.0\r\nNats-Msg-Id: ä\r\n\r\n".encode()
    assert pack_publication(b"a", b"r", head, b"xy") == b"HPUB a r %d %d\r\n%bxy\r\n" % (len(head), len(head) + 2, head)
    assert pack_headers(None) == b""
    assert (pack_subscription(b"a", 7), pack_unsubscription(7)) == (b"SUB a 7\r\n", b"UNSUB 7\r\n")


@pytest.mark.parametrize("headers", [{"a": "b\r\nc: d"}, {"a\n": "b"}, {"a": "b\r"}])
def test_line_breaks_in_headers_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="line break"):
        pack_headers(headers)
