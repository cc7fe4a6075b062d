"""Envelopes in both encodings: what a peer asks, what the server says."""

from __future__ import annotations

import gc

import msgspec
import pytest

from tests._wire.conftest import GOOD, both, data_of, decode_one, unwire, wire
from trioroom._core.history import Position
from trioroom._wire.codec import CODECS, JSON, MSGPACK, Codec, EnvelopeError
from trioroom._wire.envelopes import (
    Auth,
    Bye,
    Call,
    Cancel,
    Error,
    Gap,
    Hello,
    Join,
    Kicked,
    Leave,
    Ok,
    Ping,
    Publish,
    Push,
    Request,
)
from trioroom._wire.frames import Opcode
from trioroom._wire.publication import Publication

# -- requests --------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("envelope", "request_"),
    [
        ({"type": "auth", "id": 1, "token": "t0k3n"}, Auth(1, "t0k3n")),
        ({"type": "join", "id": "a", "room": "chat/ä"}, Join("a", "chat/ä")),
        ({"type": "join", "id": 2, "room": "r", "position": None}, Join(2, "r")),
        (
            {"type": "join", "id": 2, "room": "r", "position": {"epoch": "e", "offset": 41}},
            Join(2, "r", Position("e", 41)),
        ),
        ({"type": "leave", "id": 3, "room": "r"}, Leave(3, "r")),
        ({"type": "cancel", "id": 6}, Cancel(6)),
        ({"type": "ping", "id": 7}, Ping(7)),
        ({"room": "r", "id": -1, "unknown": [{}], "type": "leave"}, Leave(-1, "r")),
        ({"type": "cancel", "id": ""}, Cancel("")),
        ({"type": "cancel", "id": (1 << 63) - 1}, Cancel((1 << 63) - 1)),
    ],
)
def test_request_is_decoded(codec: Codec, envelope: object, request_: Request) -> None:
    assert decode_one(codec, wire(codec, envelope)) == request_


@both
def test_publish_is_decoded_with_and_without_id(codec: Codec) -> None:
    quiet = decode_one(codec, wire(codec, {"type": "publish", "room": "r", "data": {"a": [1, None]}}))
    assert isinstance(quiet, Publish)
    assert (quiet.room, quiet.id, quiet.encoding) == ("r", None, None)
    assert data_of(codec, quiet) == {"a": [1, None]}
    answered = decode_one(codec, wire(codec, {"type": "publish", "id": 4, "room": "r", "data": None}))
    assert isinstance(answered, Publish)
    assert answered.id == 4
    assert data_of(codec, answered) is None


@both
def test_call_is_decoded_with_and_without_timeout(codec: Codec) -> None:
    envelope = {"type": "call", "id": 5, "room": "r", "data": "how many?"}
    call = decode_one(codec, wire(codec, envelope))
    assert isinstance(call, Call)
    assert (call.id, call.room, call.timeout, call.encoding) == (5, "r", None, None)
    assert data_of(codec, call) == "how many?"
    for timeout in (2, 2.5, None):
        call = decode_one(codec, wire(codec, {**envelope, "timeout": timeout}))
        assert isinstance(call, Call)
        assert call.timeout == timeout


@both
def test_array_is_served_in_its_order(codec: Codec) -> None:
    payload = wire(
        codec,
        [{"type": "cancel", "id": 1}, {"type": "nope", "id": 2}, {"type": "leave", "id": 3, "room": "r"}, 4],
    )
    first, second, third, fourth = codec.decode(payload)
    assert (first, third) == (Cancel(1), Leave(3, "r"))
    assert isinstance(second, EnvelopeError)
    assert isinstance(fourth, EnvelopeError)
    assert (second.error.id, second.error.code) == (2, "unknown_type")
    assert (fourth.error.id, fourth.error.code) == (None, "bad_envelope")


@both
@pytest.mark.parametrize("count", [0, 1, 15, 16, 70_000])
def test_array_may_be_of_any_length(codec: Codec, count: int) -> None:
    assert codec.decode(wire(codec, [{"type": "cancel", "id": 1}] * count)) == [Cancel(1)] * count


@pytest.mark.parametrize("space", [" ", "\t", "\r\n", " \n\t\r"])
def test_json_may_stand_between_spaces(space: str) -> None:
    text = f'{space}{{"type":"cancel",{space}"id":1}}{space}'
    assert JSON.decode(text) == [Cancel(1)]
    assert JSON.decode(f"{space}[{text},{text}]{space}") == [Cancel(1)] * 2


@pytest.mark.parametrize("count", [b"\x91", b"\xdc\x00\x01", b"\xdd\x00\x00\x00\x01"])
def test_messagepack_arrays_of_every_form_are_arrays(count: bytes) -> None:
    assert MSGPACK.decode(count + GOOD) == [Cancel(1)]


# -- what the server says --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("envelope", "expected"),
    [
        (
            Hello("5f0c", 25.0, 65_536),
            '{"type":"hello","connection":"5f0c","ping_interval":25.0,"max_message_bytes":65536,"version":1}',
        ),
        (Ok(1), '{"type":"ok","id":1}'),
        (Ok("a", "r", state={"topic": "tea"}), '{"type":"ok","id":"a","room":"r","state":{"topic":"tea"}}'),
        (Ok(4, "r", data=12), '{"type":"ok","id":4,"room":"r","data":12}'),
        (Ok(4, "r", recovered=False), '{"type":"ok","id":4,"room":"r","recovered":false}'),
        (
            Error(None, "unknown_room", "no such room"),
            '{"type":"error","id":null,"code":"unknown_room","message":"no such room","retry":false,"after":null}',
        ),
        (
            Error(2, "timeout", "late", retry=True, after=1.5),
            '{"type":"error","id":2,"code":"timeout","message":"late","retry":true,"after":1.5}',
        ),
        (Kicked("r", 4002, "rude"), '{"type":"kicked","room":"r","code":4002,"reason":"rude"}'),
        (Gap("r", "overflow", 3), '{"type":"gap","room":"r","reason":"overflow","lost":3}'),
        (Gap("r", "backplane"), '{"type":"gap","room":"r","reason":"backplane","lost":null}'),
        (Bye(4101, (0.8, 5.0)), '{"type":"bye","code":4101,"after":[0.8,5.0]}'),
    ],
)
def test_envelope_of_the_server_is_as_the_reference_shows_it(envelope: object, expected: str) -> None:
    assert JSON.encode(envelope).decode() == expected
    assert unwire(MSGPACK, MSGPACK.encode(envelope)) == msgspec.json.decode(expected)


@pytest.mark.parametrize(
    "record",
    [
        Auth(1, "t"), Join(1, "r"), Leave(1, "r"), Publish("r", msgspec.Raw(b"1")), Call(1, "r", msgspec.Raw(b"1")),
        Cancel(1), Ping(1), Position("e", 1), Hello("c", 1.0, 1), Ok(1), Error(1, "c", "m"), Push("r", 1),
        Kicked("r", 1, ""), Gap("r", ""), Bye(1, (0.0, 1.0)), Publication(1),
    ],
    ids=lambda record: type(record).__name__,
)  # fmt: skip
def test_record_stays_as_it_is(record: msgspec.Struct) -> None:
    for field in record.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(record, field, None)


def test_publications_are_no_work_for_the_garbage_collector() -> None:
    """There may be many at a time (docs/decisions/0002)."""
    assert not gc.is_tracked(Publication([]))


@both
def test_push_leaves_out_what_it_has_not(codec: Codec) -> None:
    assert unwire(codec, codec.push("r", {"a": 1}, None)) == {"type": "message", "room": "r", "data": {"a": 1}}
    assert unwire(codec, codec.push("r", None, "u1", 45)) == {
        "type": "message",
        "room": "r",
        "data": None,
        "from": "u1",
        "offset": 45,
    }


def test_push_begins_with_its_type() -> None:
    assert JSON.push("chat/a", {"text": "hello"}, "5f0c") == (
        b'{"type":"message","room":"chat/a","data":{"text":"hello"},"from":"5f0c"}'
    )


def test_codecs_are_found_by_their_subprotocol() -> None:
    assert CODECS == {"trioroom.v1.json": JSON, "trioroom.v1.msgpack": MSGPACK}
    assert (JSON.opcode, MSGPACK.opcode) == (Opcode.TEXT, Opcode.BINARY)
