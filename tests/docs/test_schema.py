"""The JSON Schema of protocol v1 is that of the envelopes, and tells right ones from wrong ones."""

from __future__ import annotations

from typing import get_args

import jsonschema
import msgspec
import pytest

from tests.docs.write_schema import PATH, schema, written
from tests.transcripts.player import Transcript, Values, as_list, load
from trioroom._wire.codec import JSON, EnvelopeError
from trioroom._wire.envelopes import FromServer

TRANSCRIPTS = load()
TYPES = {struct.__struct_config__.tag for struct in get_args(FromServer)}


def of(definition: str) -> jsonschema.Draft202012Validator:
    """What checks values to be a ``definition`` of the schema in the documentation."""
    whole = msgspec.json.decode(PATH.read_bytes())
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{definition}", "$defs": whole["$defs"]})


def test_schema_in_the_documentation_is_that_of_the_envelopes() -> None:
    assert PATH.read_text("utf-8") == written(), "run python -m tests.docs.write_schema"


def test_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_envelopes_of_the_transcripts_are_as_the_schema_says(transcript: Transcript) -> None:
    values, client, server = Values(), of("ClientFrame"), of("FromServer")
    for step in transcript.steps:
        if "client" in step:
            frame = values.fill(step["client"])
            assert client.is_valid(frame) == can_be_read(frame)
            assert client.is_valid(frame) or transcript.server_only
        for envelope in as_list(values.fill(step.get("server", []))):
            if envelope["type"] in TYPES:  # others are of a later version
                server.validate(envelope)


@pytest.mark.parametrize(
    "frame",
    [
        "no envelope",
        None,
        {},
        {"id": 1},
        {"type": "dance", "id": 1},
        {"type": "hello", "id": 1},
        {"type": "ping"},
        {"type": "ping", "id": None},
        {"type": "ping", "id": 1.5},
        {"type": "ping", "id": True},
        {"type": "auth", "id": 1, "token": None},
        {"type": "join", "id": 1},
        {"type": "join", "id": 1, "room": "a", "position": {"offset": 1}},
        {"type": "join", "id": 1, "room": "a", "position": {"epoch": "e", "offset": "1"}},
        {"type": "publish", "id": 1, "room": "a"},
        {"type": "publish", "room": "a", "data": "AAEC", "encoding": "base32"},
        {"type": "call", "id": 1, "room": "a", "data": 1, "timeout": "2"},
        {"type": "history", "id": 1, "room": "a", "limit": None},
        [{"type": "ping", "id": 1}, {"type": "ping"}],
        [[{"type": "ping", "id": 1}]],
    ],
)
def test_wrong_requests_are_refused_as_the_server_refuses_them(frame: object) -> None:
    assert not of("ClientFrame").is_valid(frame)
    assert not can_be_read(frame)


@pytest.mark.parametrize(
    "envelope",
    [
        {"type": "hello", "version": 1},
        {"type": "ok"},
        {"type": "ok", "id": 1, "messages": [{"data": 1}]},
        {"type": "ok", "id": 1, "members": ["ann"]},
        {"type": "error", "id": 1, "code": 4001, "message": "no"},
        {"type": "message", "room": "a"},
        {"type": "message", "room": "a", "data": 1, "offset": "1"},
        {"type": "gap", "room": "a", "reason": "overflow", "position": None},
        {"type": "presence", "room": "a", "version": 1},
        {"type": "bye", "code": 4101, "after": [1]},
        {"type": "bye", "code": 4101, "after": [1, 2, 3]},
        {"type": "ping", "id": 1},
    ],
)
def test_wrong_envelopes_of_a_server_are_refused(envelope: object) -> None:
    assert not of("ServerFrame").is_valid(envelope)
    assert not of("ServerFrame").is_valid([envelope])


def can_be_read(frame: object) -> bool:
    """Whether the server takes all that is in ``frame`` for requests."""
    return not any(isinstance(request, EnvelopeError) for request in JSON.decode(msgspec.json.encode(frame).decode()))
