"""A stream in which histories of rooms are, as requests to JetStream.

Many rooms share one, with a subject for each: a stream of its own for each room would take 50 KiB and a file at the
server, which makes no more than some hundred of them in a second. So an offset is a sequence of the stream. The server
republishes what it has stored, with its sequence and that of the one before it in the room.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import attrs
import msgspec

from trioroom.backplane.nats.protocol import Message, parse_headers
from trioroom.backplane.nats.requests import Requests
from trioroom.backplane.nats.settings import NatsSettings
from trioroom.backplane.nats.streams import (
    NANOSECONDS,
    NO_MESSAGE,
    NOT_THERE,
    WRONG_LAST_SEQUENCE,
    JetStreamError,
    append,
    call_api,
    ensure_stream,
    is_end,
)
from trioroom.backplane.nats.subjects import Names
from trioroom.errors import BackplaneError, BackplaneUnavailable

MARK: Final = "Trioroom-Mark"
"""A header of what is no publication, but stands where a room that has none begins."""
_SPREAD: Final = "trioroom-streams"  # in the metadata, over how many streams the rooms are spread


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A message of the stream."""

    sequence: int
    since: float
    """When it was stored, by the server's clock: seconds since 1970."""
    payload: bytes
    mark: bool = False
    """It is no publication."""
    later: int = 0
    """How many of its subject come after it, where that was asked for."""


@attrs.frozen
class Batch:
    """Messages of one subject, without a hole."""

    messages: list[Stored]
    ends: bool
    """Nothing came after them at that time."""


@attrs.frozen
class StreamState:
    """What the server says of the stream."""

    last_sequence: int
    now: float
    """By the server's clock."""


def stream_config(settings: NatsSettings, number: int) -> dict[str, object]:
    """What `ensure_stream` takes: see https://docs.nats.io/nats-concepts/jetstream/streams."""
    names = Names(settings.prefix)
    remembered = round(settings.publication_id_ttl * NANOSECONDS)
    return {
        "name": names.history(number),
        "metadata": {_SPREAD: str(settings.history_streams)},
        "subjects": [f"{names.keep(number)}>"],
        "republish": {"src": f"{names.keep(number)}>", "dest": f"{names.kept(number)}>"},
        "retention": "limits",
        "storage": settings.storage,
        "discard": "old",
        "max_msgs_per_subject": settings.max_history_size + 1,  # the one more tells what was dropped last
        "max_age": max(round(settings.position_ttl * NANOSECONDS), remembered),  # the server wants no less
        "duplicate_window": remembered,
        "num_replicas": settings.replicas,
        "allow_direct": True,
        "allow_msg_ttl": True,  # for what outlives max_age
    }


class HistoryStream:
    """Requests about it; calls may overlap. They raise `BackplaneUnavailable` and `JetStreamError` as `append` does."""

    def __init__(self, requests: Requests, settings: NatsSettings, number: int) -> None:
        self._requests = requests
        self._settings = settings
        self._number = number
        self._name = Names(settings.prefix).history(number)

    @property
    def replicated(self) -> bool:
        """Some of its servers may be behind."""
        return self._settings.replicas > 1

    async def ensure(self) -> StreamState:
        """Have it, as the settings say.

        Raises:
            BackplaneError: other nodes look for rooms in other streams.
        """
        try:
            found = (await call_api(self._requests, f"STREAM.INFO.{self._name}"))["config"]
        except JetStreamError as exc:
            if exc.err_code != NOT_THERE:
                raise
        else:
            spread = (found.get("metadata") or {}).get(_SPREAD)
            if spread != str(self._settings.history_streams):
                raise BackplaneError(
                    f"histories are spread over {spread} streams, and not history_streams="
                    f"{self._settings.history_streams}; set it alike on all nodes, or remove the streams"
                )
        return _parse_state(await ensure_stream(self._requests, stream_config(self._settings, self._number)))

    async def ask_state(self) -> StreamState:
        """How far it is."""
        return _parse_state(await call_api(self._requests, f"STREAM.INFO.{self._name}"))

    async def append(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> int:
        """The sequence of what is now stored, or of the first one with this ``Nats-Msg-Id``."""
        return int((await append(self._requests, subject, payload, headers))["seq"])

    async def append_next(self, subject: str, after: int, payload: bytes, headers: Mapping[str, str]) -> bool:
        """Unless something has come to ``subject`` after this sequence, 0 for nothing at all."""
        try:
            await self.append(subject, payload, {**headers, "Nats-Expected-Last-Subject-Sequence": str(after)})
        except JetStreamError as exc:
            if exc.err_code != WRONG_LAST_SEQUENCE:
                raise
            return False
        return True

    async def ask_last(self, subject: str) -> Stored | None:
        """The latest one of ``subject``, as the stream's leader knows it: others may be behind."""
        return await self._ask_leader({"last_by_subj": subject})

    async def ask_first(self, subject: str) -> Stored | None:
        """The oldest one that the leader still has."""
        return await self._ask_leader({"next_by_subj": subject, "seq": 1})

    async def _ask_leader(self, asked: Mapping[str, object]) -> Stored | None:
        try:
            answer = await call_api(self._requests, f"STREAM.MSG.GET.{self._name}", asked)
        except JetStreamError as exc:
            if exc.err_code not in (NO_MESSAGE, NOT_THERE):
                raise
            return None
        return _parse_answer(answer["message"])

    async def ask_lasts(self, *subjects: str) -> list[Stored | None]:
        """The latest one of each, all at one moment where one server has the stream; with several as `ask_last`."""
        if self.replicated:
            return [await self.ask_last(subject) for subject in subjects]
        replies = await self._ask_direct({"multi_last": subjects, "batch": len(subjects)})
        found = {reply.headers["Nats-Subject"]: _parse_stored(reply) for reply in replies[:-1]}
        return [found.get(subject) for subject in subjects]

    async def read(self, subject: str, sequence: int, count: int, max_bytes: int) -> Batch:
        """Up to ``count`` of those from ``sequence`` on, so many that the last one may pass ``max_bytes``."""
        asked = {"next_by_subj": subject, "seq": max(sequence, 1), "batch": count, "max_bytes": max_bytes}
        replies = await self._ask_direct(asked)
        messages = [_parse_stored(reply) for reply in replies[:-1]]
        return Batch(messages, not messages or int(replies[-1].headers.get("Nats-Num-Pending", 0)) == 0)

    async def _ask_direct(self, asked: Mapping[str, object]) -> list[Message]:
        """Any server that has the stream answers; the last reply says that there are no more, or none."""
        subject = f"$JS.API.DIRECT.GET.{self._name}"
        replies = await self._requests.ask_many(subject, json.dumps(asked).encode(), last=is_end)
        if replies[-1].status not in (204, 404):
            raise BackplaneError(f"JetStream refuses to read: {replies[-1].status} {replies[-1].description}")
        return replies


def _parse_state(answer: Mapping[str, Any]) -> StreamState:
    return StreamState(int(answer["state"]["last_seq"]), parse_time(answer["ts"]))


def parse_time(text: str) -> float:
    """Seconds since 1970 of what the server writes, to the microsecond."""
    return datetime.fromisoformat(text).timestamp()


def _parse_stored(message: Message) -> Stored:
    headers = message.headers
    try:
        return Stored(
            int(headers["Nats-Sequence"]),
            parse_time(headers["Nats-Time-Stamp"]),
            message.payload,
            MARK in headers,
            int(headers.get("Nats-Num-Pending", 0)),
        )
    except (KeyError, ValueError) as exc:
        raise BackplaneUnavailable(f"the broker answered with {dict(headers)}, which is not JetStream's") from exc


def _parse_answer(message: Mapping[str, Any]) -> Stored:
    head = base64.b64decode(message.get("hdrs") or "")
    payload = base64.b64decode(message.get("data") or "")
    return Stored(int(message["seq"]), parse_time(message["time"]), payload, MARK in parse_headers(head))
