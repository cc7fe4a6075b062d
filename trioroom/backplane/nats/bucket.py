"""A key-value bucket of JetStream: a stream that keeps the latest message of each key and tells of each change.

What is put comes out again, numbered, on subjects that begin with `Bucket.told`, so that any number of nodes follow
some keys at the cost of a plain subscription. As it has the conventions of buckets, ``nats kv`` shows what is there.
See https://docs.nats.io/nats-concepts/jetstream/key-value-store.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from itertools import chain, islice
from typing import Final

import attrs
import trio

from trioroom.backplane.nats.protocol import Message
from trioroom.backplane.nats.requests import NoResponders, Requests
from trioroom.backplane.nats.settings import NatsSettings
from trioroom.backplane.nats.streams import (
    NO_MESSAGE,
    NOT_THERE,
    JetStreamError,
    append,
    ask_until_decided,
    call_api,
    ensure_stream,
    is_end,
)
from trioroom.errors import BackplaneError, BackplaneUnavailable

_NOT_FOUND: Final = frozenset((NO_MESSAGE, NOT_THERE))
_READERS: Final = 16
_PUTS_AT_ONCE: Final = 2_000  # by `Bucket.put_all`, in all
_TASKS: Final = 250  # of one `Bucket.put_all`, so many requests of which are on their way together
_BATCH: Final = 1_000  # entries of one reply
_BATCH_BYTES: Final = 1 << 20  # about, of one reply
_END_OF_BATCH: Final = 204
_TOO_MANY: Final = 413
_FADES: Final = "60s"  # how long marks stay: they matter to who is there, and to who reads at that moment
_MAX_DIGITS: Final = 20  # of a sequence number, which has 64 bits
# What we never put. The server takes a key with them from others, and if we asked it to purge what they have put, say,
# it would be everybody's.
_PATTERN: Final = frozenset("*>")


@attrs.frozen
class Entry:
    """The latest message of a key."""

    key: str
    payload: bytes
    sequence: int
    """Of the stream: whatever is put later has a higher one."""
    time: datetime
    """When the server has got it, by its clock."""


@attrs.frozen
class Put:
    """What is to be put. One that ``fades`` is gone after a minute."""

    key: str
    payload: bytes
    fades: bool = False

    @property
    def headers(self) -> Mapping[str, str] | None:
        """For the server, and for ``nats kv``, to which it is a key that was deleted."""
        return {"KV-Operation": "DEL", "Nats-TTL": _FADES} if self.fades else None


class Bucket:
    """Of this app's presence. It is made when it is missing."""

    def __init__(self, requests: Requests, settings: NatsSettings) -> None:
        self.told = f"{settings.prefix}.told."
        """Before the keys of what is told again."""
        self.stream = f"KV_{settings.prefix}_presence"
        """What it is."""
        self.readers = trio.Semaphore(_READERS)
        """For who reads a room: after an outage those are all, and replies to all at once would be more than the server
        holds for a connection before it closes it, 64 MiB."""
        self._requests = requests
        self._subjects = f"$KV.{settings.prefix}_presence."
        self._config = {
            "name": self.stream,
            "subjects": [f"{self._subjects}>"],
            "republish": {"src": f"{self._subjects}room.>", "dest": f"{self.told}room.>"},
            "retention": "limits",
            "storage": settings.storage,
            "num_replicas": settings.replicas,
            "discard": "new",
            "max_msgs_per_subject": 1,
            "allow_direct": True,
            "allow_msg_ttl": True,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
        }
        self._making = trio.Lock()
        self._made = 0
        # Of the requests that may wait, so that after an outage, when all rooms put all their rows, each of them waits
        # here for as long as it takes, and not there, where it fails after a while and is to be tried again.
        self._slots = trio.Semaphore(max(1, min(_PUTS_AT_ONCE, settings.max_queued_publications // 2)))

    async def _make(self, made: int) -> None:
        """Unless it has been since it was made so often. Raises as `put` does."""
        async with self._making:
            if self._made != made:
                return  # many may miss it at the same time
            told = await ensure_stream(self._requests, self._config)
            if not told.get("config", {}).get("allow_msg_ttl"):
                raise BackplaneError("the NATS server is older than 2.11, which presence needs; upgrade it")
            self._made += 1

    async def put(self, what: Put, *, after: int | None = None) -> int:
        """Its sequence number.

        Args:
            after: only if this is the number of what is there, or 0 and there is nothing.
        Raises:
            JetStreamError: it is not, by `trioroom.backplane.nats.streams.WRONG_LAST_SEQUENCE`, or the server refuses.
            BackplaneUnavailable: as `Requests.ask`.
        """
        headers = dict(what.headers or {})
        if after is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(after)
        subject, made = self._subjects + what.key, self._made
        ask = partial(self._requests.ask, subject, what.payload, headers)
        try:
            answer = await ask_until_decided(ask, self._requests.timeout)
        except NoResponders:  # there is no such stream
            await self._make(made)
            answer = await append(self._requests, subject, what.payload, headers)
        return _integer(answer.get("seq"))

    async def put_all(self, puts: Iterable[Put]) -> None:
        """Each key once, many at a time; in what order the server gets them is left open. Raises as `put` does.

        If one fails all are tried, and the rest may be there. ``puts`` is asked for each when there is room for it.
        """
        failures: list[BackplaneError] = []
        rest = iter(puts)

        async def put_from(first: Put) -> None:
            for what in chain((first,), rest):  # a task for each would take a fifth more of the time
                try:
                    self._slots.acquire_nowait()  # no checkpoint, so that many go out together
                except trio.WouldBlock:
                    await self._slots.acquire()
                try:
                    await self.put(what)
                except BackplaneError as exc:
                    failures.append(exc)
                finally:
                    self._slots.release()

        async with trio.open_nursery() as nursery:
            for first in islice(rest, _TASKS):
                nursery.start_soon(put_from, first)
        if failures:
            raise failures[0]

    async def latest(self, key: str) -> tuple[int, bytes] | None:
        """Sequence number and payload, as the stream's leader knows them. Raises as `put` does."""
        try:
            answer = await call_api(
                self._requests, f"STREAM.MSG.GET.{self.stream}", {"last_by_subj": self._subjects + key}
            )
            message = answer["message"]
            return _integer(message["seq"]), base64.b64decode(message.get("data", ""))
        except JetStreamError as exc:
            if exc.err_code in _NOT_FOUND:
                return None
            raise
        except (KeyError, TypeError, AttributeError, binascii.Error) as exc:
            raise BackplaneUnavailable("the broker answered what is no message of a stream") from exc

    async def read(self, keys: str) -> list[Entry]:
        """All whose keys match, a pattern of subjects, by their numbers. A key that is a pattern itself is left out.

        What is put or removed meanwhile may be there or not. In a cluster any server that has the stream answers, also
        one that is behind.

        Raises:
            BackplaneUnavailable: as `Requests.ask`.
        """
        subject = self._subjects + keys
        # By an index of keys: 5 ms among a million messages, and refused beyond 1,024 keys. The other way the server
        # looks at all messages, which takes 100 ms and more.
        which: dict[str, object] = {"multi_last": [subject]}
        nothing = "No Results"
        entries: list[Entry] = []
        after, pending = 0, True
        while pending:
            *replies, end = await self._ask_batch({**which, "seq": after + 1})
            if end.status == _TOO_MANY and "multi_last" in which:
                which, nothing = {"next_by_subj": subject}, "Message Not Found"
                continue
            if end.status != _END_OF_BATCH and end.description != nothing:
                raise BackplaneUnavailable(f"the broker does not tell what is in {self.stream}: {end.description}")
            found = self._parse_all(replies)
            entries += [entry for entry in found if _PATTERN.isdisjoint(entry.key)]
            after = found[-1].sequence if found else after
            pending = bool(found) and end.headers.get("Nats-Num-Pending", "0") != "0"
        return entries

    async def _ask_batch(self, which: Mapping[str, object]) -> list[Message]:
        payload = json.dumps({**which, "batch": _BATCH, "max_bytes": _BATCH_BYTES}).encode()
        subject, made = f"$JS.API.DIRECT.GET.{self.stream}", self._made
        try:
            return await self._requests.ask_many(subject, payload, last=is_end)
        except NoResponders:
            await self._make(made)
            return await self._requests.ask_many(subject, payload, last=is_end)

    def _parse_all(self, replies: Iterable[Message]) -> list[Entry]:
        try:
            return [self._parse(reply, reply.headers.get("Nats-Subject", "")) for reply in replies]
        except ValueError as exc:
            raise BackplaneUnavailable(f"what answers for {self.stream} is no stream: {exc}") from exc

    def parse_told(self, message: Message) -> Entry:
        """What has come on a subject that begins with `told`.

        Raises:
            ValueError: it does not come from the stream.
        """
        key = message.subject.decode(errors="replace").removeprefix(self.told)
        if not _PATTERN.isdisjoint(key):
            raise ValueError("a key is a pattern")
        return self._parse(message, self._subjects + key)

    def _parse(self, message: Message, subject: str) -> Entry:
        headers = message.headers
        try:
            sequence = _digits(headers["Nats-Sequence"])
            time = datetime.fromisoformat(headers["Nats-Time-Stamp"])
        except (KeyError, ValueError) as exc:
            raise ValueError("a message is not numbered by the stream") from exc
        return Entry(subject.removeprefix(self._subjects), message.payload, sequence, time)

    async def purge(self, keys: str) -> None:
        """All whose keys match go, and nobody is told. Raises as `put` does."""
        try:
            await call_api(self._requests, f"STREAM.PURGE.{self.stream}", {"filter": self._subjects + keys})
        except JetStreamError as exc:
            if exc.err_code not in _NOT_FOUND:
                raise


def _digits(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise ValueError(f"{text[:40]!r} is no sequence number")
    return int(text)


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise BackplaneUnavailable(f"the broker answered {value!r}, which is no sequence number")
    return value
