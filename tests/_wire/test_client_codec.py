"""The client's side of v1: what it sends a server understands, and what a server says it understands."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom._wire.client_codec import CLIENT_CODECS, ClientCodec, decode_data
from trioroom._wire.codec import CODECS
from trioroom._wire.envelopes import Auth, Bye, Call, Hello, Ok, Publish, Push
from trioroom._wire.message import Data
from trioroom.errors import RemoteProtocolError

CODEC_NAMES = ["json", "msgpack"]
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text()
values = st.binary() | st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)


def frame(codec: ClientCodec, value: object) -> str | bytes:
    encoded = CODECS[codec.subprotocol].encode(value)
    return encoded.decode() if codec.is_text else encoded


@pytest.mark.parametrize("name", CODEC_NAMES)
@given(data=values)
def test_data_comes_out_at_the_server_as_it_went_in(name: str, data: Data) -> None:
    codec = CLIENT_CODECS[name]
    server = CODECS[codec.subprotocol]
    raw, encoding = codec.encode_data(data)
    sent = codec.encode([Publish("a", raw, 1, encoding), Call(2, "a", raw, None, encoding)])
    for request in server.decode(sent.decode() if codec.is_text else sent):
        assert isinstance(request, Publish | Call)
        assert server.decode_data(request.data, request.encoding) == data


@pytest.mark.parametrize("name", CODEC_NAMES)
@given(data=values)
def test_what_a_server_pushes_comes_out_as_it_went_in(name: str, data: Data) -> None:
    codec = CLIENT_CODECS[name]
    pushed = CODECS[codec.subprotocol].push("a", data, "bob", 7)
    [push] = codec.decode(pushed.decode() if codec.is_text else pushed)
    assert isinstance(push, Push)
    assert (push.room, push.sender, push.offset, decode_data(push.data, push.encoding)) == ("a", "bob", 7, data)


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_one_request_goes_as_it_is_and_several_as_an_array(name: str) -> None:
    codec = CLIENT_CODECS[name]
    decode = msgspec.json.decode if codec.is_text else msgspec.msgpack.decode
    one, other = Auth(1, "a"), Auth(2, "b")
    assert decode(codec.encode([one])) == {"type": "auth", "id": 1, "token": "a"}
    assert [each["id"] for each in decode(codec.encode([one, other]))] == [1, 2]


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_unknown_types_and_fields_are_for_later_clients(name: str) -> None:
    codec = CLIENT_CODECS[name]
    said: list[dict[str, object]] = [
        {"type": "weather", "sun": True},
        {"type": "ok", "id": 1, "colour": {"deep": [1]}},
        {"type": "bye", "code": 4101, "after": [1, 2.5]},
    ]
    assert codec.decode(frame(codec, said)) == [Ok(1), Bye(4101, (1.0, 2.5))]
    assert codec.decode(frame(codec, said[0])) == []


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_hello_of_a_server_without_heartbeat(name: str) -> None:
    codec = CLIENT_CODECS[name]
    hello = CODECS[codec.subprotocol].encode(Hello("c", None if codec.is_text else float("inf"), 1))
    [decoded] = codec.decode(hello.decode() if codec.is_text else hello)
    assert isinstance(decoded, Hello)
    assert decoded.ping_interval in (None, float("inf"))


@pytest.mark.parametrize("name", CODEC_NAMES)
@pytest.mark.parametrize("said", [{"type": "message"}, {"type": "bye", "code": "x"}, {"no": "type"}, 1, [1], "x", None])
def test_what_is_no_envelope_is_the_servers_error(name: str, said: object) -> None:
    codec = CLIENT_CODECS[name]
    with pytest.raises(RemoteProtocolError) as error:
        codec.decode(frame(codec, said))
    assert error.value.close_code == 4000


@pytest.mark.parametrize("name", CODEC_NAMES)
@given(payload=st.binary())
def test_any_bytes_are_envelopes_or_the_servers_error(name: str, payload: bytes) -> None:
    codec = CLIENT_CODECS[name]
    try:
        codec.decode(payload.decode("latin-1") if codec.is_text else payload)
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize(("name", "payload"), [("json", b"{}"), ("msgpack", "{}")])
def test_frame_of_the_wrong_kind_is_the_servers_error(name: str, payload: str | bytes) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        CLIENT_CODECS[name].decode(payload)
    assert error.value.close_code == 1003


@pytest.mark.parametrize("data", ["?", "AAE", 1, None])
def test_data_that_is_not_the_base64_it_claims_to_be(data: object) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_data(data, "base64")


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_data_that_has_no_form_is_a_type_error(name: str) -> None:
    endless: list[object] = []
    endless.append(endless)
    for data in (endless, object()):
        with pytest.raises(TypeError):
            CLIENT_CODECS[name].encode_data(data)  # type: ignore[arg-type]  # which is what is tested
