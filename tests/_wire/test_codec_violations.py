"""Envelopes that no peer may send: those that are answered with an error, and those that end the connection."""

from __future__ import annotations

import pytest

from tests._wire.conftest import BAD_STRING, FAR_TOO_DEEP, GOOD, Payload, both, map_of, publish_of, wire
from trioroom._wire.codec import JSON, MSGPACK, Codec, EnvelopeError
from trioroom._wire.envelopes import Error
from trioroom.errors import ProtocolError, RemoteProtocolError

# -- what can be answered with an error ------------------------------------------------------------


def error_of(codec: Codec, payload: Payload) -> Error:
    (error,) = codec.decode(payload)
    assert isinstance(error, EnvelopeError)
    assert str(error) == error.error.message
    return error.error


@both
@pytest.mark.parametrize(
    ("type", "shown"), [("nope", "'nope'"), ("", "''"), ("Join", "'Join'"), ("message", "'message'")]
)
@pytest.mark.parametrize("id", [7, "seven", None])
def test_unknown_type_is_answered_with_the_id(codec: Codec, type: str, shown: str, id: int | str | None) -> None:
    error = error_of(codec, wire(codec, {"id": id, "type": type}))
    message = f"type {shown} is not one of auth, join, leave, publish, call, cancel, history, who, ping"
    assert error == Error(id, "unknown_type", message)


@both
def test_missing_type_is_answered_with_the_id(codec: Codec) -> None:
    message = "type None is not one of auth, join, leave, publish, call, cancel, history, who, ping"
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


# -- what cannot be answered -----------------------------------------------------------------------


def refusal(codec: Codec, payload: Payload) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as raised:
        codec.decode(payload)
    return raised.value


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
