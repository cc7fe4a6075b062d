"""Targets of protocol v1, in both encodings, and of what servers tell each other through a broker."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TypeAlias

import msgspec

from tests.fuzz.inputs import Source, build, split
from trioroom._wire.client_codec import CLIENT_CODECS, ClientCodec, decode_data
from trioroom._wire.client_frames import take_frame
from trioroom._wire.codec import JSON, MSGPACK, Codec, EnvelopeError
from trioroom._wire.control import decode_control, encode_control
from trioroom._wire.encoding import encoding_for
from trioroom._wire.envelopes import Call, FromServer, HistoryItem, Publish, Push, Request
from trioroom._wire.message import Data
from trioroom._wire.publication import decode_publication, encode_publication
from trioroom.errors import RemoteProtocolError

CLIENTS = {JSON: CLIENT_CODECS["json"], MSGPACK: CLIENT_CODECS["msgpack"]}
Payload: TypeAlias = str | bytes


def payload_of(data: bytes, is_text: bool) -> Payload:
    """As a frame of that kind has it."""
    return data.decode(errors="replace") if is_text else data


# -- what clients send -------------------------------------------------------------------------------


def envelopes(data: bytes) -> None:
    """Any frame holds requests, errors to answer with, or is refused; and the encodings agree on which of these."""
    (flags,), rest = split(data, 1)
    if flags & 2:
        compare_encodings(build(Source(rest), flags >> 2 & 3))
        return
    codec = (JSON, MSGPACK)[flags & 1]
    answers = answers_to(codec, payload_of(rest, codec is JSON))
    for request in answers or ():
        if isinstance(request, EnvelopeError):
            check_error(codec, request)
        else:
            check_request(codec, request)


def answers_to(codec: Codec, payload: Payload) -> list[Request | EnvelopeError] | None:
    """What a frame asks for; None if the connection is closed for it."""
    try:
        return codec.decode(payload)
    except RemoteProtocolError as exc:
        if exc.close_code != 4000 or len(str(exc)) > 1_000 + len(payload):
            raise
    return None


def compare_encodings(value: object) -> None:
    """A frame with ``value`` is taken alike in either of them."""
    as_json, as_msgpack = (
        answers_to(codec, payload_of(codec.encode(value), codec is JSON)) for codec in (JSON, MSGPACK)
    )
    assert as_json is not None
    assert as_msgpack is not None
    for one, other in zip(as_json, as_msgpack, strict=True):
        if isinstance(one, EnvelopeError) or isinstance(other, EnvelopeError):
            assert isinstance(one, EnvelopeError)
            assert isinstance(other, EnvelopeError)
            assert (one.error.code, one.error.id) == (other.error.code, other.error.id)
            check_error(JSON, one)
        elif isinstance(one, Publish | Call) and isinstance(other, Publish | Call):
            assert alike(data_of(JSON, one), data_of(MSGPACK, other))
            blank = msgspec.Raw(b"")
            assert alike(msgspec.structs.replace(one, data=blank), msgspec.structs.replace(other, data=blank))
            check_request(JSON, one)
        else:
            assert alike(one, other)
            check_request(JSON, one)


def data_of(codec: Codec, request: Publish | Call) -> Data:
    """What it carries; why that cannot be, if it cannot."""
    try:
        return codec.decode_data(request.data, request.encoding)
    except ValueError as exc:
        return f"no data: {exc}"


def check_error(codec: Codec, error: EnvelopeError) -> None:
    """It can be said to the peer, who finds out by the id which request it is of."""
    assert error.error.code in ("bad_envelope", "unknown_type")
    assert isinstance(error.error.id, int | str | None)
    assert told(codec, codec.encode(error.error)) == [error.error]


def check_request(codec: Codec, request: Request) -> None:
    """As a client would write it, it comes back, in this encoding and in the other one."""
    if not isinstance(request, Publish | Call):
        for each in (JSON, MSGPACK):
            if encodable(each, request):
                (again,) = each.decode(written(each, request))
                assert alike(again, request)
        return
    try:
        value = codec.decode_data(request.data, request.encoding)
    except ValueError:
        return
    for each in (JSON, MSGPACK):
        raw, encoding = CLIENTS[each].encode_data(value)
        (again,) = each.decode(written(each, msgspec.structs.replace(request, data=raw, encoding=encoding)))
        assert isinstance(again, Publish | Call)
        assert alike(each.decode_data(again.data, again.encoding), value)
        check_delivery(each, request.room, value)


def encodable(codec: Codec, request: Request) -> bool:
    """JSON has integers of any size and no infinity."""
    try:
        codec.encode(request)
    except OverflowError:
        return False
    return True


def written(codec: Codec, request: Request) -> Payload:
    """The payload of a frame as a client sends it."""
    return payload_of(CLIENTS[codec].encode([request]), codec is JSON)


def check_delivery(codec: Codec, room: str, value: Data) -> None:
    """A member hears what was published."""
    (push,) = told(codec, codec.push(room, value, "ann", 7))
    assert isinstance(push, Push)
    assert (push.room, push.sender, push.offset) == (room, "ann", 7)
    assert alike(decode_data(push.data, push.encoding), value)
    item = msgspec.json.encode(JSON.history_item(7, value, None))
    kept = msgspec.json.decode(item, type=HistoryItem)
    assert alike(decode_data(kept.data, kept.encoding), value)


def told(codec: Codec, payload: bytes) -> list[FromServer]:
    """What a client makes of a frame of the server."""
    return CLIENTS[codec].decode(payload_of(payload, codec is JSON))


def alike(one: object, other: object) -> bool:
    """Equal; a number that JSON has no word for has become null."""
    if isinstance(one, msgspec.Struct):
        return type(one) is type(other) and alike(msgspec.structs.astuple(one), msgspec.structs.astuple(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(other, float) and not math.isfinite(other):
        return one is None or isinstance(one, float)
    return one == other and isinstance(one, bool) == isinstance(other, bool)


# -- what servers send -------------------------------------------------------------------------------


def server_envelopes(data: bytes) -> None:
    """Whatever a server sends, a client hears something or says what is wrong; and what it heard it would say alike."""
    (flags,), rest = split(data, 1)
    client = CLIENTS[(JSON, MSGPACK)[flags & 1]]
    try:
        heard = client.decode(payload_of(rest, client.is_text))
    except RemoteProtocolError as exc:
        code = exc.close_code
    else:
        code = 4000
        for envelope in heard:
            check_heard(client, envelope)
    assert code == 4000


def check_heard(client: ClientCodec, envelope: FromServer) -> None:
    codec = JSON if client.is_text else MSGPACK
    try:
        payload = codec.encode(envelope)
    except (OverflowError, TypeError):  # odd keys and large integers, which no server of ours sends
        return
    assert alike(client.decode(payload_of(payload, client.is_text)), [envelope])
    if isinstance(envelope, Push):
        with suppress(RemoteProtocolError):
            decode_data(envelope.data, envelope.encoding)


# -- what comes through a broker ---------------------------------------------------------------------

ENCODINGS = [encoding_for(codec, bits) for codec in (None, JSON, MSGPACK) for bits in (None, 15)]


def publications(data: bytes) -> None:
    """Whatever a program puts into a room's channel is refused, or goes to members of all kinds as it came."""
    try:
        publication = decode_publication(data)
    except msgspec.DecodeError:
        return
    for encoding in ENCODINGS:
        frame = encoding.message("room", publication.data, publication.sender, 7)
        taken = take_frame(frame)
        assert taken is not None
        assert taken[2] == b""
    again = encode_publication(publication.data, publication.sender, publication.exclude, publication.key)  # type: ignore[arg-type]
    assert alike(decode_publication(again), publication)


def control(data: bytes) -> None:
    """Whatever a program says to the servers is refused, or a message that can be said again."""
    try:
        message = decode_control(data)
    except ValueError:
        return
    assert alike(decode_control(encode_control(message)), message)


TARGETS = (envelopes, server_envelopes, publications, control)
