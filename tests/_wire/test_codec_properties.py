"""Envelopes of any kind: what goes in comes out, and any bytes are requests, errors or a refusal, nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from tests._wire.conftest import BAD_STRING, Payload, both, data_of, decode_one, publish_of, unwire, wire
from trioroom._core.history import Position
from trioroom._wire.codec import JSON, MSGPACK, Codec, EnvelopeError
from trioroom._wire.envelopes import Auth, Call, Cancel, Join, Leave, Publish, Request
from trioroom._wire.message import Data
from trioroom._wire.publication import decode_publication, encode_publication
from trioroom.errors import RemoteProtocolError

# -- requests and data that are in order ------------------------------------------------------------

INTEGERS = st.integers(-(1 << 63), (1 << 64) - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
IDS = INTEGERS | st.text(max_size=8)
ROOMS = st.text(max_size=12)
SIMPLE_REQUESTS = st.one_of(
    st.builds(Auth, IDS, st.text()),
    st.builds(Join, IDS, ROOMS, st.none() | st.builds(Position, st.text(max_size=8), INTEGERS)),
    st.builds(Leave, IDS, ROOMS),
    st.builds(Cancel, IDS),
)


@both
@given(requests=st.lists(SIMPLE_REQUESTS, max_size=5))
def test_what_a_client_asks_arrives(codec: Codec, requests: list[Request]) -> None:
    assert codec.decode(wire(codec, requests)) == requests
    for request in requests:
        assert codec.decode(wire(codec, request)) == [request]


@both
@given(
    id=st.none() | IDS,
    room=ROOMS,
    data=VALUES | st.binary(max_size=30),
    timeout=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_what_a_client_publishes_or_calls_with_arrives(
    codec: Codec, id: int | str | None, room: str, data: Data, timeout: float | None
) -> None:
    pushed = unwire(codec, codec.push(room, data, None))
    assert isinstance(pushed, dict)
    carried = {key: pushed[key] for key in ("room", "data", "encoding") if key in pushed}
    publish = decode_one(codec, wire(codec, {"type": "publish", "id": id, **carried}))
    assert isinstance(publish, Publish)
    assert (publish.room, publish.id) == (room, id)
    assert data_of(codec, publish) == data
    if id is not None:
        call = decode_one(codec, wire(codec, {"type": "call", "id": id, "timeout": timeout, **carried}))
        assert isinstance(call, Call)
        assert (call.room, call.id, call.timeout) == (room, id, timeout)
        assert data_of(codec, call) == data


# -- bytes of any kind -----------------------------------------------------------------------------


TYPES = st.sampled_from(["auth", "join", "leave", "publish", "call", "cancel", "nope"])
NEARLY_ENVELOPES = st.fixed_dictionaries(
    {},
    optional={
        "type": TYPES | VALUES,
        "id": IDS | VALUES,
        "room": ROOMS | VALUES,
        "data": VALUES,
        "token": st.text() | VALUES,
        "timeout": st.floats(allow_nan=False, allow_infinity=False) | VALUES,
        "encoding": st.just("base64") | VALUES,
        "position": VALUES,
    },
)
NEARLY_FRAMES = NEARLY_ENVELOPES | st.lists(NEARLY_ENVELOPES | VALUES, max_size=4)
EDITS = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=3)
# What JSON lacks: extensions (the timestamp among them), keys that are no strings, strings that are none.
ODD_MESSAGEPACK = st.recursive(
    st.sampled_from(
        [b"\xc0", b"\x01", b"\xa1a", BAD_STRING, b"\xc4\x01a", b"\xd4\x05a", b"\xd6\xff\0\0\0\x01", b"\xc1"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: bytes([0x90 + len(items)]) + b"".join(items))
        | st.lists(st.tuples(inner, inner).map(b"".join), max_size=3).map(
            lambda items: bytes([0x80 + len(items)]) + b"".join(items)
        )
    ),
    max_leaves=8,
)


def edited(payload: bytes, edits: Sequence[tuple[int, int]]) -> bytes:
    """``payload`` with a few bytes overwritten, as by a client with a bug."""
    changed = bytearray(payload)
    for at, byte in edits:
        if changed:
            changed[at % len(changed)] = byte
    return bytes(changed)


def check_outcome(codec: Codec, payload: Payload) -> None:
    """Requests and errors, or a RemoteProtocolError; and the data of a request can go to every member."""
    try:
        answers = codec.decode(payload)
    except RemoteProtocolError as exc:
        assert exc.close_code == 4000  # noqa: PT017  # one of the outcomes that are right
        return
    for answer in answers:
        if isinstance(answer, EnvelopeError):
            assert answer.error.code in ("bad_envelope", "unknown_type")
            assert isinstance(answer.error.id, int | str | None)
            codec.encode(answer.error)
        elif isinstance(answer, Publish | Call):
            try:
                data = data_of(codec, answer)
            except ValueError:
                continue
            publication = decode_publication(encode_publication(data, None, None))
            JSON.push(answer.room, publication.data, None)
            MSGPACK.push(answer.room, publication.data, None)


@given(
    st.text()
    | st.text(alphabet='{}[]":,\\ \n01e.-tnfypeid')
    | st.builds(edited, NEARLY_FRAMES.map(msgspec.json.encode), EDITS).map(lambda raw: raw.decode(errors="replace"))
)
@example('{"type":"publish","room":"r","data":1e308}')
def test_any_text_is_requests_and_errors_or_refused(text: str) -> None:
    check_outcome(JSON, text)


@given(
    st.binary()
    | ODD_MESSAGEPACK
    | ODD_MESSAGEPACK.map(publish_of)
    | st.builds(edited, NEARLY_FRAMES.map(msgspec.msgpack.encode), EDITS)
)
@example(publish_of(msgspec.msgpack.encode([math.nan, math.inf])))
def test_any_bytes_are_requests_and_errors_or_refused(data: bytes) -> None:
    check_outcome(MSGPACK, data)
