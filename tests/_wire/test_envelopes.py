from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trioroom._wire.envelopes import (
    CODECS,
    JSON,
    MSGPACK,
    Auth,
    Bye,
    Call,
    Cancel,
    Codec,
    EnvelopeError,
    Error,
    Gap,
    Hello,
    Join,
    Kicked,
    Leave,
    Ok,
    Position,
    Publication,
    Publish,
    Push,
    Request,
    decode_publication,
    encode_publication,
)
from trioroom._wire.frames import Opcode
from trioroom._wire.message import Data
from trioroom.errors import ProtocolError, RemoteProtocolError

Payload: TypeAlias = str | bytes
both = pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=["json", "msgpack"])

FAR_TOO_DEEP = 50_000  # the largest message has room for more
BAD_STRING = b"\xa1\xff"  # in MessagePack, one byte that is not UTF-8


def wire(codec: Codec, value: object) -> Payload:
    """``value`` as the payload of a frame, made apart from the code under test."""
    return msgspec.json.encode(value).decode() if codec is JSON else msgspec.msgpack.encode(value)


def unwire(codec: Codec, payload: bytes) -> object:
    decoded: object = msgspec.json.decode(payload) if codec is JSON else msgspec.msgpack.decode(payload)
    return decoded


def decode_one(codec: Codec, payload: Payload) -> Request:
    (request,) = codec.decode(payload)
    assert not isinstance(request, EnvelopeError), request
    return request


def error_of(codec: Codec, payload: Payload) -> Error:
    (error,) = codec.decode(payload)
    assert isinstance(error, EnvelopeError)
    assert str(error) == error.error.message
    return error.error


def refusal(codec: Codec, payload: Payload) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as raised:
        codec.decode(payload)
    return raised.value


def data_of(codec: Codec, request: Request) -> Data:
    assert isinstance(request, Publish | Call)
    return codec.decode_data(request.data, request.encoding)


def map_of(*pairs: tuple[str, bytes]) -> bytes:
    """A MessagePack map whose values are encoded already."""
    return bytes([0x80 + len(pairs)]) + b"".join(msgspec.msgpack.encode(key) + value for key, value in pairs)


def publish_of(data: bytes) -> bytes:
    """A ``publish`` in MessagePack whose data is encoded already."""
    return map_of(("type", b"\xa7publish"), ("room", b"\xa1r"), ("data", data))


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


# -- what can be answered with an error ---------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("type", "shown"), [("nope", "'nope'"), ("", "''"), ("Join", "'Join'"), ("message", "'message'")]
)
@pytest.mark.parametrize("id", [7, "seven", None])
def test_unknown_type_is_answered_with_the_id(codec: Codec, type: str, shown: str, id: int | str | None) -> None:
    error = error_of(codec, wire(codec, {"id": id, "type": type}))
    message = f"type {shown} is not one of auth, join, leave, publish, call, cancel"
    assert error == Error(id, "unknown_type", message)


@both
def test_missing_type_is_answered_with_the_id(codec: Codec) -> None:
    message = "type None is not one of auth, join, leave, publish, call, cancel"
    assert error_of(codec, wire(codec, {"id": 7})) == Error(7, "unknown_type", message)
    assert error_of(codec, wire(codec, {})) == Error(None, "unknown_type", message)


BAD_FIELDS = [
    ({"type": "auth", "id": 1}, "auth: Object missing required field `token`"),
    ({"type": "auth", "id": 1, "token": 5}, "auth: Expected `str`, got `int` - at `$.token`"),
    ({"type": "join", "id": 1}, "join: Object missing required field `room`"),
    ({"type": "join", "id": 1, "room": 5}, "join: Expected `str`, got `int` - at `$.room`"),
    (
        {"type": "join", "id": 1, "room": "r", "position": {"epoch": "e"}},
        "join: Object missing required field `offset` - at `$.position`",
    ),
    ({"type": "leave", "id": 1, "room": ["r"]}, "leave: Expected `str`, got `array` - at `$.room`"),
    ({"type": "publish", "id": 1, "room": "r"}, "publish: Object missing required field `data`"),
    (
        {"type": "publish", "id": 1, "room": "r", "data": "", "encoding": "hex"},
        "publish: Invalid enum value 'hex' - at `$.encoding`",
    ),
    ({"type": "call", "id": 1, "data": 1}, "call: Object missing required field `room`"),
    (
        {"type": "call", "id": 1, "room": "r", "data": 1, "timeout": "2"},
        "call: Expected `float | null`, got `str` - at `$.timeout`",
    ),
]


@both
@pytest.mark.parametrize(("envelope", "why"), BAD_FIELDS)
def test_bad_field_is_answered_with_the_id_and_named(codec: Codec, envelope: object, why: str) -> None:
    error = error_of(codec, wire(codec, envelope))
    assert error == Error(1, "bad_envelope", f"{why}; see the protocol reference")


@both
@pytest.mark.parametrize("type", ["auth", "join", "leave", "call", "cancel"])
def test_request_needs_an_id(codec: Codec, type: str) -> None:
    error = error_of(codec, wire(codec, {"type": type, "token": "t", "room": "r", "data": 1}))
    assert error == Error(
        None, "bad_envelope", f"{type}: Object missing required field `id`; see the protocol reference"
    )


@both
@pytest.mark.parametrize("id", [1.5, True, [], {}])
def test_id_is_a_whole_number_or_a_string(codec: Codec, id: object) -> None:
    error = error_of(codec, wire(codec, {"type": "cancel", "id": id}))
    assert (error.id, error.code) == (None, "bad_envelope")
    assert "$.id" in error.message
    assert error.message.endswith("; send an object with type and id")


@both
@pytest.mark.parametrize("value", [1, "join", "", None, True, 1.5])
def test_what_is_no_object_is_answered_without_id(codec: Codec, value: object) -> None:
    for payload in (wire(codec, value), wire(codec, [value])):
        error = error_of(codec, payload)
        assert (error.id, error.code) == (None, "bad_envelope")
        assert error.message.startswith("Expected `object`, got `")
        assert error.message.endswith("`; send an object with type and id")


@both
def test_arrays_do_not_nest(codec: Codec) -> None:
    error = error_of(codec, wire(codec, [[{"type": "cancel", "id": 1}]]))
    assert (error.id, error.code) == (None, "bad_envelope")


def test_errors_to_answer_with_are_no_reason_to_try_again() -> None:
    error = error_of(JSON, "{}")
    assert (error.retry, error.after) == (False, None)


def test_envelope_error_is_the_peers_fault() -> None:
    error = EnvelopeError(Error(1, "bad_envelope", "why"))
    assert isinstance(error, ProtocolError)
    assert str(error) == "why"


# -- what cannot be answered ---------------------------------------------------------------------------


def test_other_kind_of_frame_is_refused() -> None:
    error = refusal(JSON, b'{"type":"cancel","id":1}')
    assert error.close_code == 1003
    assert str(error) == "trioroom.v1.json is spoken in text frames; send those"
    error = refusal(MSGPACK, "\x82")
    assert error.close_code == 1003
    assert str(error) == "trioroom.v1.msgpack is spoken in binary frames; send those"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[",
        '{"type":"cancel","id":1',
        '{"type":"cancel","id":1}x',
        '{"type":"cancel","id":1}{}',
        '[{"type":"cancel","id":1}',
        '[{"type":"cancel","id":1}]x',
        '[{"type":"cancel","id":1},]',
        "hello",
        "{'type':1}",
        '{"type":"\\ud800"}',
        '{"type":"\\x"}',
        '{"type":"publish","room":"r","data":01}',
        '{"type":"publish","room":"r","data":"a\nb"}',
        "\x00",
        "\ufeff{}",
    ],
)
def test_text_that_is_no_json_is_refused(text: str) -> None:
    error = refusal(JSON, text)
    assert error.close_code == 4000
    assert str(error).startswith("frame is no envelope: ")
    assert str(error).endswith("; send an object with a type")


GOOD = msgspec.msgpack.encode({"type": "cancel", "id": 1})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x81",
        b"\x91",
        b"\xdc",
        b"\xdc\x00\x02" + GOOD,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        GOOD[:-1],
        GOOD + b"\x00",
        b"\x92" + GOOD,
        b"\x91" + GOOD + b"\x00",
    ],
)
def test_bytes_that_are_no_messagepack_are_refused(data: bytes) -> None:
    error = refusal(MSGPACK, data)
    assert error.close_code == 4000
    assert str(error).startswith("frame is no envelope: ")


@pytest.mark.parametrize("count", [b"\x91", b"\xdc\x00\x01", b"\xdd\x00\x00\x00\x01"])
def test_messagepack_arrays_of_every_form_are_arrays(count: bytes) -> None:
    assert MSGPACK.decode(count + GOOD) == [Cancel(1)]


@pytest.mark.parametrize(
    "data",
    [
        map_of(("type", BAD_STRING)),
        map_of(("type", b"\xa6cancel"), ("id", BAD_STRING)),
        map_of(("type", b"\xa4nope"), ("id", BAD_STRING)),
        map_of(("type", b"\xa5leave"), ("id", b"\x01"), ("room", BAD_STRING)),
        b"\x92" + GOOD + map_of(("type", BAD_STRING)),
        BAD_STRING,
        b"\x91" + BAD_STRING,
    ],
)
def test_messagepack_string_that_is_not_utf_8_is_the_peers_error(data: bytes) -> None:
    """Never a UnicodeDecodeError: a single frame would stop the server."""
    try:
        answers = MSGPACK.decode(data)
    except RemoteProtocolError as exc:
        assert exc.close_code == 4000  # noqa: PT017  # closing and answering are both right
    else:
        assert isinstance(answers[-1], EnvelopeError)


DEEP = [
    (JSON, "[" * FAR_TOO_DEEP),
    (JSON, "[" * FAR_TOO_DEEP + "]" * FAR_TOO_DEEP),
    (JSON, '{"a":' * FAR_TOO_DEEP),
    (JSON, '{"type":"publish","room":"r","data":' + "[" * FAR_TOO_DEEP + "]" * FAR_TOO_DEEP + "}"),
    (JSON, '[{"id":' + "[" * FAR_TOO_DEEP + "]" * FAR_TOO_DEEP + "}]"),
    (MSGPACK, b"\x91" * FAR_TOO_DEEP + b"\x01"),
    (MSGPACK, b"\x81\x01" * FAR_TOO_DEEP + b"\x01"),
    (MSGPACK, publish_of(b"\x91" * FAR_TOO_DEEP + b"\x01")),
    (MSGPACK, b"\x91" + map_of(("id", b"\x91" * FAR_TOO_DEEP + b"\x01"))),
]


@pytest.mark.parametrize(("codec", "payload"), DEEP)
def test_nesting_without_end_is_the_peers_error(codec: Codec, payload: Payload) -> None:
    """Never a RecursionError: a single frame would stop the server."""
    try:
        answers = codec.decode(payload)
    except RemoteProtocolError as exc:
        assert exc.close_code == 4000  # noqa: PT017  # closing and answering are both right
    else:
        assert all(isinstance(answer, EnvelopeError) for answer in answers)


# -- data, and binary data in JSON -------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x01\x02", bytes(range(256))])
def test_binary_data_travels_as_base64_in_json_both_ways(data: bytes) -> None:
    pushed = unwire(JSON, JSON.push("r", data, None))
    assert isinstance(pushed, dict)
    assert pushed["encoding"] == "base64"
    for type in ("publish", "call"):
        request = {"type": type, "id": 1, "room": "r", "data": pushed["data"], "encoding": "base64"}
        assert data_of(JSON, decode_one(JSON, wire(JSON, request))) == data


def test_base64_is_that_of_the_rfc() -> None:
    assert JSON.push("r", b"\x00\x01\xff\xfe", None) == (
        b'{"type":"message","room":"r","data":"AAH//g==","encoding":"base64"}'
    )


@pytest.mark.parametrize("data", [b"", b"\x00\xff"])
def test_binary_data_travels_as_it_is_in_messagepack(data: bytes) -> None:
    request = decode_one(MSGPACK, wire(MSGPACK, {"type": "publish", "room": "r", "data": data}))
    assert data_of(MSGPACK, request) == data
    assert unwire(MSGPACK, MSGPACK.push("r", data, None)) == {"type": "message", "room": "r", "data": data}


@both
def test_base64_is_understood_in_both_encodings(codec: Codec) -> None:
    request = {"type": "publish", "room": "r", "data": "AAEC", "encoding": "base64"}
    assert data_of(codec, decode_one(codec, wire(codec, request))) == b"\x00\x01\x02"


@both
@pytest.mark.parametrize("data", ["A", "AA", "AAA", "AA=C", "A A=", "-_-_", "ä", "AAEC\n"])
def test_data_that_is_not_the_base64_it_claims_to_be_is_an_error(codec: Codec, data: str) -> None:
    request = decode_one(codec, wire(codec, {"type": "publish", "room": "r", "data": data, "encoding": "base64"}))
    with pytest.raises(ValueError, match=r"base64|ASCII"):
        data_of(codec, request)


@both
@pytest.mark.parametrize("data", [1, None, ["AAEC"], {"a": "AAEC"}])
def test_base64_needs_a_string(codec: Codec, data: object) -> None:
    request = decode_one(codec, wire(codec, {"type": "call", "id": 1, "room": "r", "data": data, "encoding": "base64"}))
    with pytest.raises(ValueError, match=r'^"encoding":"base64" needs data that is a string$'):
        data_of(codec, request)


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
def test_data_that_nests_without_end_is_an_error(codec: Codec) -> None:
    """The recursion that `Codec.decode` came through may be too much a few calls further on."""
    raw = b"[" * FAR_TOO_DEEP + b"]" * FAR_TOO_DEEP if codec is JSON else b"\x91" * FAR_TOO_DEEP + b"\x01"
    with pytest.raises(ValueError, match=r"\w"):
        codec.decode_data(msgspec.Raw(raw), None)


@pytest.mark.parametrize(
    ("codec", "raw"),
    [(JSON, b"1e999999"), (JSON, b"9" * 10_000), (MSGPACK, BAD_STRING), (MSGPACK, b"\x81\x80\x01")],
    ids=["huge float", "huge integer", "not UTF-8", "map as a key"],
)
def test_data_that_python_cannot_hold_is_an_error(codec: Codec, raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        codec.decode_data(msgspec.Raw(raw), None)


NOT_JSON = {
    "extension": b"\xd4\x05a",
    "extension in an array": b"\x91\xd4\x05a",
    "null as a key": b"\x81\xc0\x01",
    "boolean as a key": b"\x81\xc3\x01",
    "array as a key": b"\x81\x90\x01",
}


@pytest.mark.parametrize("raw", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_messagepack_that_json_has_no_words_for_is_an_error(raw: bytes) -> None:
    """Else a room with members of both kinds fails when the publication is encoded for the other kind."""
    with pytest.raises(ValueError, match=r"\w"):
        data_of(MSGPACK, decode_one(MSGPACK, publish_of(raw)))


@pytest.mark.parametrize("number", [1 << 64, -(1 << 63) - 1, 10**30])
def test_integer_that_messagepack_has_no_bytes_for_is_an_error(number: int) -> None:
    """As above; `encode_publication` would be the first to fail."""
    request = decode_one(JSON, f'{{"type":"publish","room":"r","data":[{number}]}}')
    with pytest.raises(ValueError, match=r"\w"):
        data_of(JSON, request)


@both
@pytest.mark.parametrize("number", [(1 << 64) - 1, -(1 << 63)])
def test_largest_integers_pass(codec: Codec, number: int) -> None:
    request = decode_one(codec, wire(codec, {"type": "publish", "room": "r", "data": number}))
    assert data_of(codec, request) == number


# -- what the server says -----------------------------------------------------------------------------


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
        Cancel(1), Position("e", 1), Hello("c", 1.0, 1), Ok(1), Error(1, "c", "m"), Push("r", 1), Kicked("r", 1, ""),
        Gap("r", ""), Bye(1, (0.0, 1.0)), Publication(1),
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


# -- publications ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["text", b"\x00\xff", None, 1.5, [1, {"a": [True]}], {}])
@pytest.mark.parametrize(("sender", "exclude"), [(None, None), ("u1", None), (None, "u2"), ("u1", "u1")])
def test_publication_crosses_the_backplane_unchanged(data: Data, sender: str | None, exclude: str | None) -> None:
    payload = encode_publication(data, sender, exclude)
    assert isinstance(payload, bytes)
    assert decode_publication(payload) == Publication(data, sender, exclude)


def test_publication_of_something_else_is_a_type_error() -> None:
    for data in (object(), 1j, {"a": [Opcode]}):
        with pytest.raises(TypeError):
            encode_publication(data, None, None)  # type: ignore[arg-type]  # which is what is tested


def test_publication_of_an_integer_of_more_than_64_bits_is_an_error_of_its_kind() -> None:
    """And no OverflowError, which nobody who calls ``publish`` would think of."""
    with pytest.raises((TypeError, ValueError), match=r"\w"):
        encode_publication([1 << 64], None, None)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x93",
        b"\x90",
        b"\x01",
        b"\x80",
        b"\x93\x01\x01\xc0",
        b"\x93\x01\xc0\xc0\x00",
        b"\x93" + BAD_STRING + b"\xc0\xc0",
        b"\x93\xc0" + BAD_STRING + b"\xc0",
        b"\x93" + b"\x91" * FAR_TOO_DEEP + b"\x01\xc0\xc0",
        b"\x93\x81\x80\x01\xc0\xc0",
        b'{"data":1}',
    ],
)
def test_what_another_program_put_on_the_backplane_is_a_decode_error(payload: bytes) -> None:
    """And no other, or the room's pump would end with it."""
    with pytest.raises(msgspec.DecodeError):
        decode_publication(payload)


def test_publication_from_a_newer_version_may_have_more_fields() -> None:
    assert decode_publication(b"\x94\x01\xc0\xc0\xa3new") == Publication(1)
    assert decode_publication(b"\x91\x01") == Publication(1)


# -- requests and data of any kind ------------------------------------------------------------------------

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


@given(data=VALUES | st.binary(), sender=st.none() | st.text(), exclude=st.none() | st.text())
def test_any_publication_crosses_the_backplane(data: Data, sender: str | None, exclude: str | None) -> None:
    assert decode_publication(encode_publication(data, sender, exclude)) == Publication(data, sender, exclude)


@given(st.binary() | VALUES.map(msgspec.msgpack.encode))
def test_any_bytes_are_a_publication_or_a_decode_error(payload: bytes) -> None:
    try:
        assert isinstance(decode_publication(payload), Publication)
    except msgspec.DecodeError:
        pass


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


@settings(deadline=None)
@given(
    st.text()
    | st.text(alphabet='{}[]":,\\ \n01e.-tnfypeid')
    | st.builds(edited, NEARLY_FRAMES.map(msgspec.json.encode), EDITS).map(lambda raw: raw.decode(errors="replace"))
)
@example('{"type":"publish","room":"r","data":1e308}')
def test_any_text_is_requests_and_errors_or_refused(text: str) -> None:
    check_outcome(JSON, text)


@settings(deadline=None)
@given(
    st.binary()
    | ODD_MESSAGEPACK
    | ODD_MESSAGEPACK.map(publish_of)
    | st.builds(edited, NEARLY_FRAMES.map(msgspec.msgpack.encode), EDITS)
)
@example(publish_of(msgspec.msgpack.encode([math.nan, math.inf])))
def test_any_bytes_are_requests_and_errors_or_refused(data: bytes) -> None:
    check_outcome(MSGPACK, data)


def from_below(frames: int, fn: Callable[[], object]) -> object:
    """What ``fn`` returns when it is called from so many frames further on."""
    return from_below(frames - 1, fn) if frames else fn()


@pytest.mark.parametrize(("before", "after"), [("[", "]"), ('{"a":', "}")])
def test_what_nests_as_deep_as_it_may_gets_out_again(before: str, after: str) -> None:
    """Python's recursion limit is none of ours: a hook that publishes, or a fan-out, may be nearer to it."""
    for depth in range(1, 1001):
        try:
            answers = JSON.decode(f'{{"type":"publish","room":"r","data":{before * depth}1{after * depth}}}')
            assert isinstance(answers[0], Publish)
            data = data_of(JSON, answers[0])
        except (RemoteProtocolError, ValueError):
            break
        for encode in (
            lambda data=data: encode_publication(data, None, None),
            lambda data=data: JSON.push("r", data, None),
            lambda data=data: MSGPACK.push("r", data, None),
        ):
            from_below(50, encode)
    assert depth > 10
