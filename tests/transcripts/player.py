"""Golden transcripts of protocol v1: how they read, and the matching that tests of the server and of clients share.

``v1.json`` is an array of transcripts. Each has a ``name``, ``about`` (a sentence for people) and ``steps``, and may
have ``settings`` of the server, ``clients_only`` (a server cannot be brought to say this when it should) or
``server_only`` (our clients do not ask so), or ``authenticates`` (the server wants to know who its peers are: it takes
``ann`` and ``ann 20``, good for 20 seconds, for tokens of ann). A step has one key:

``connect``     the client connects: the first step, and again after each loss. ``token`` is what it has to show then,
                and ``later`` are the tokens that it has to show while that connection lasts.
``client``      an envelope that the client sends, or an array of them: one frame either way.
``server``      an envelope that the server sends, or an array of them. Our server sends an array as so many frames;
                clients take it either way.
``close``       the server closes with this ``code`` and ``reason``; null: the connection is cut.
``hang_up``     the client closes with this ``code``.
``after``       the client comes back so many seconds later: least and most. The next step is ``connect``.
``do``          what the application asks of the client: ``call`` names it, ``as`` names its answer.
``event``       what the application is told, see below.
``present``     whom the client lists in ``room`` at this point: ``users`` with their info, ``count``.
``meanwhile``   what happens on the server's side, so that it says what follows; for the server's test alone.

Events are ``joined``, ``message``, ``gap``, ``presence``, ``rejoined`` and ``end`` (of a room, with the ``error``),
``answer`` and ``failed`` (``to`` is the ``as`` of a ``do``; of a page, ``value`` has the fields) and ``closed`` (the
client, for good). Those of a room, or of one answer, come in the order of the steps. A kind that a transcript does not
mention is not looked at.

A test of a server plays ``client``, checks ``server`` and ``close``, and skips what is the application's. One of a
client plays ``do``, ``server`` and ``close``, and checks ``client``, ``hang_up``, ``event`` and ``present``.

Values that differ from run to run are patterns: ``{"$any": "string"}`` or ``"number"``; ``{"$about": 20}``, a number
that differs by less than 1; ``{"$bind": "x"}``, a string
that is called x from here on; ``{"$use": "x"}``, that string again. Whoever plays a step makes up what they leave open.
Objects match if they have the same fields, where one that is null is as good as left out, except ``data``. In an
``event`` only the fields that it names count, one named null as well, and likewise in its ``error`` and ``value``.

Envelopes are written as JSON has them. In MessagePack, ``data`` beside ``"encoding":"base64"`` is bytes, and stands
alone. In ``do``, ``event`` and ``meanwhile`` bytes are ``{"$bytes": "AAEC"}``, in base64 too.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, TypeAlias

import attrs
import msgspec

Json: TypeAlias = Any
"""As ``json`` decodes it, with bytes where MessagePack has them."""

PATH = Path(__file__).with_name("v1.json")
_ANY: dict[str, tuple[type | UnionType, Json]] = {"string": (str, "any"), "number": (int | float, 100)}


@attrs.frozen
class Transcript:
    """One course of a conversation."""

    name: str
    about: str
    steps: list[dict[str, Json]]
    settings: dict[str, Json] = attrs.field(factory=dict)
    clients_only: bool = False
    server_only: bool = False
    authenticates: bool = False


def load() -> list[Transcript]:
    """All transcripts."""
    return [Transcript(**entry) for entry in msgspec.json.decode(PATH.read_bytes())]


def tokens_of(transcript: Transcript) -> Iterator[str | None]:
    """What the client has to show, one connection after another."""
    for step in transcript.steps:
        if "connect" in step:
            yield step["connect"].get("token")
            yield from step["connect"].get("later", [])


def as_list(envelopes: Json) -> list[dict[str, Json]]:
    """The envelopes of a step, be it one or an array."""
    return envelopes if isinstance(envelopes, list) else [envelopes]


class Values:
    """What the names of a transcript stand for in this run."""

    def __init__(self) -> None:
        self._bound: dict[str, str] = {}

    def fill(self, pattern: Json) -> Json:
        """A value that matches ``pattern``."""
        if isinstance(pattern, list):
            return [self.fill(item) for item in pattern]
        match pattern:
            case {"$any": kind}:
                return _ANY[kind][1]
            case {"$about": number}:
                return number
            case {"$bind": name}:
                return self._bound.setdefault(name, uuid.uuid4().hex)
            case {"$use": name}:
                return self._bound[name]
            case {"$bytes": text}:
                return base64.b64decode(text)
            case dict():
                return {key: self.fill(value) for key, value in pattern.items()}
        return pattern

    def matches(self, pattern: Json, value: Json, *, partly: bool = False) -> bool:
        """Whether ``value`` is as ``pattern`` says; names it binds are kept.

        Args:
            partly: further fields do not matter, as in an ``event``.
        """
        match pattern:
            case {"$any": kind}:
                return isinstance(value, _ANY[kind][0]) and not isinstance(value, bool)
            case {"$about": number}:
                return isinstance(value, int | float) and not isinstance(value, bool) and abs(value - number) < 1
            case {"$bind": name}:
                return isinstance(value, str) and self._bound.setdefault(name, value) == value
            case {"$use": name}:
                return bool(self._bound[name] == value)
            case {"$bytes": text}:
                return bool(base64.b64decode(text) == value)
            case dict():
                return isinstance(value, dict) and self._matches_object(pattern, value, partly)
            case list():
                return isinstance(value, list) and len(value) == len(pattern) and all(map(self.matches, pattern, value))
        return isinstance(pattern, bool) is isinstance(value, bool) and bool(pattern == value)  # 1 is not true in JSON

    def _matches_object(self, pattern: dict[str, Json], value: dict[str, Json], partly: bool) -> bool:
        value = _without_null(value)
        if not partly and _without_null(pattern).keys() != value.keys():
            return False
        return all(
            self.matches(expected, value[key], partly=partly and key in ("error", "value"))
            if key in value
            else expected is None and key != "data"
            for key, expected in pattern.items()
        )


def _without_null(fields: dict[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in fields.items() if value is not None or key == "data"}


def to_msgpack(envelope: Json) -> Json:
    """An envelope of a transcript as MessagePack has it: binary data as it is, in a page of a history too."""
    if isinstance(envelope, list):
        return [to_msgpack(item) for item in envelope]
    if not isinstance(envelope, dict):
        return envelope
    fields = {key: value if key == "data" else to_msgpack(value) for key, value in envelope.items()}
    if fields.get("encoding") == "base64" and isinstance(fields.get("data"), str):
        fields["data"] = base64.b64decode(fields["data"])
        del fields["encoding"]
    return fields
