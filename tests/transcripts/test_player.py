"""The transcripts are well formed, and their patterns match what they should and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.transcripts.player import Json, Transcript, Values, as_list, load, to_msgpack

KINDS = {"connect", "client", "server", "close", "hang_up", "after", "do", "event", "present", "meanwhile"}
EVENTS = {"joined", "message", "gap", "presence", "rejoined", "end", "answer", "failed", "closed"}
TRANSCRIPTS = load()
each = pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)


def names(value: Json, key: str) -> Iterator[str]:
    """What the patterns of this kind within ``value`` name, in their order."""
    if isinstance(value, list):
        for item in value:
            yield from names(item, key)
    elif isinstance(value, dict):
        if key in value:
            yield value[key]
        for item in value.values():
            yield from names(item, key)


def test_names_are_given_once() -> None:
    assert len({transcript.name for transcript in TRANSCRIPTS}) == len(TRANSCRIPTS)


@each
def test_transcript_has_steps_of_known_kinds_and_is_for_somebody(transcript: Transcript) -> None:
    kinds = [kind for step in transcript.steps for kind in step]
    assert len(kinds) == len(transcript.steps)
    assert set(kinds) <= KINDS
    assert kinds[0] == "connect"
    assert {step["event"]["event"] for step in transcript.steps if "event" in step} <= EVENTS
    assert not (transcript.clients_only and transcript.server_only)


@each
def test_each_connection_begins_with_hello_and_comes_after_the_end_of_the_one_before(transcript: Transcript) -> None:
    course = [kind for step in transcript.steps for kind in step if kind in ("connect", "close", "hang_up", "server")]
    for place, kind in enumerate(course):
        if kind == "connect":
            assert place == 0 or course[place - 1] == "close"
            assert course[place + 1] == "server"
    connects = [at for at, step in enumerate(transcript.steps) if "connect" in step]
    for at in connects:
        first = next(step["server"] for step in transcript.steps[at:] if "server" in step)
        assert as_list(first)[0]["type"] == "hello"


@each
def test_names_are_bound_before_they_are_used(transcript: Transcript) -> None:
    bound: set[str] = set()
    for step in transcript.steps:
        bound |= set(names(step, "$bind"))
        assert set(names(step, "$use")) <= bound


@each
def test_client_numbers_its_requests(transcript: Transcript) -> None:
    if transcript.server_only:
        return
    ids = count(1)
    for step in transcript.steps:
        if "connect" in step:
            ids = count(1)
        for envelope in as_list(step.get("client", [])):
            if "id" in envelope and envelope["type"] != "cancel":
                assert envelope["id"] == next(ids)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ({"a": [1, {"b": "x"}]}, {"a": [1, {"b": "x"}]}),
        (1, 1.0),
        ({"$any": "string"}, ""),
        ({"$any": "number"}, 2.5),
        ({"$about": 2}, 2.9),
        ([{"$bind": "x"}, {"$use": "x"}], ["v", "v"]),
        ({"data": {"$bytes": "AAEC"}}, {"data": b"\0\1\2"}),
        ({"id": 1, "after": None}, {"id": 1}),
        ({"id": 1}, {"id": 1, "after": None}),
        ({"data": None}, {"data": None}),
    ],
)
def test_what_matches(pattern: Json, value: Json) -> None:
    assert Values().matches(pattern, value)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 2}, {"a": 1}),
        ({"a": 1}, [1]),
        ([1], [1, 2]),
        ([1], {"a": 1}),
        (1, True),
        (True, 1),
        ("1", 1),
        ({"$any": "string"}, 1),
        ({"$any": "number"}, "1"),
        ({"$any": "number"}, True),
        ({"$about": 2}, 3),
        ({"$about": 1}, True),
        ({"$about": 2}, "2"),
        ({"$bind": "x"}, 1),
        ([{"$bind": "x"}, {"$use": "x"}], ["v", "w"]),
        ([{"$bind": "x"}, {"$bind": "x"}], ["v", "w"]),
        ({"data": {"$bytes": "AAEC"}}, {"data": "AAEC"}),
        ({"data": None}, {}),
        ({}, {"data": None}),
    ],
)
def test_what_does_not_match(pattern: Json, value: Json) -> None:
    assert not Values().matches(pattern, value)


def test_event_is_matched_by_the_fields_it_names() -> None:
    event = {"event": "end", "error": {"name": "RequestRefused", "retry": False}}
    seen = {"event": "end", "room": "a", "error": {"name": "RequestRefused", "retry": False, "message": "no"}}
    assert Values().matches(event, seen, partly=True)
    assert not Values().matches(event, {**seen, "error": {"name": "Kicked", "retry": False}}, partly=True)
    assert not Values().matches({**event, "error": None}, seen, partly=True)
    assert not Values().matches({"data": {"a": 1}}, {"data": {"a": 1, "b": 2}}, partly=True)


def test_pattern_is_filled_with_what_matches_it() -> None:
    values = Values()
    pattern = {
        "a": {"$bind": "x"},
        "b": [{"$use": "x"}, {"$any": "string"}, {"$any": "number"}, {"$about": 20}],
        "c": {"$bytes": "AA=="},
    }
    filled = values.fill(pattern)
    assert values.matches(pattern, filled)
    assert filled["b"][0] == filled["a"] != Values().fill({"$bind": "x"})


def test_binary_data_is_itself_in_messagepack_wherever_it_stands() -> None:
    page = {"type": "ok", "messages": [{"data": "AAEC", "encoding": "base64"}, {"data": {"encoding": "base64"}}]}
    assert to_msgpack(page) == {"type": "ok", "messages": [{"data": b"\0\1\2"}, {"data": {"encoding": "base64"}}]}
    assert to_msgpack([{"data": "AAEC"}]) == [{"data": "AAEC"}]
