"""What the records of rooms with a history say beside the payload, in headers.

A publication has its room's `History` with it, so that who begins to read the log late knows how much to keep. Two
more kinds of record have no payload: one only says a `History`, and one begins another epoch for its partition.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from trioroom._core.history import History
from trioroom.backplane.kafka.records import PUBLICATION_ID, Headers, Record

_WHAT = "what"
_SAYING = b"history"
_EPOCH = b"epoch"
_SAID = "history"  # as the writer says
_KNOWN = "known"  # as the writer, who says nothing, knows of it; for those who do not
_IN_FORCE = "in-force"


class Epoch(msgspec.Struct, frozen=True):
    """Another one than the topic's own, of one partition."""

    name: str
    offset: int
    """Of the record that began it: of two the later one counts."""

    def header(self) -> bytes:
        """For records that are written while it is in force."""
        return f"{self.offset} {self.name}".encode()


def say(history: History) -> Headers:
    """Of a record that says nothing else."""
    return [(_WHAT, _SAYING), (_SAID, _encode(history))]


def begin_epoch(name: str, previous: str) -> tuple[bytes, Headers]:
    """Value and headers of a record that begins the epoch ``name`` if ``previous`` is in force, else does nothing."""
    return f"{previous} {name}".encode(), [(_WHAT, _EPOCH)]


def publication(
    history: History | None, known: History | None, publication_id: str | None, epoch: Epoch | None
) -> Headers:
    """Of a publication. One of ``history`` and ``known`` is there."""
    headers: list[tuple[str, bytes]] = []
    if history is not None:
        headers.append((_SAID, _encode(history)))
    elif known is not None:
        headers.append((_KNOWN, _encode(known)))
    if publication_id is not None:
        headers.append((PUBLICATION_ID, publication_id.encode()))
    if epoch is not None:
        headers.append((_IN_FORCE, epoch.header()))
    return headers


class Content(msgspec.Struct, frozen=True):
    """What a record says."""

    room: str
    said: History | None = None
    """How much the room keeps from here on."""
    known: History | None = None
    """How much, if nobody has said so."""
    publication_id: bytes | None = None
    in_force: Epoch | None = None
    """The epoch, as far as the writer knew; None is the topic's own, or a writer that did not know."""
    is_publication: bool = True
    begins: tuple[str, str] | None = None
    """An epoch, and which one it follows."""


def read(record: Record) -> Content:
    """What it says.

    Raises:
        ValueError: nothing that we understand.
    """
    headers = dict(record.headers)
    what = headers.get(_WHAT)
    if what == _EPOCH:
        previous, _, name = record.value.decode().partition(" ")
        if not name:
            raise ValueError("it begins an epoch that has no name")
        return Content("", is_publication=False, begins=(name, previous))
    if what not in (None, _SAYING):
        raise ValueError(f"it is of another kind: {what!r}")
    said, known, in_force = headers.get(_SAID), headers.get(_KNOWN), headers.get(_IN_FORCE)
    return Content(
        record.name.decode(),
        None if said is None else _decode(said),
        None if known is None else _decode(known),
        headers.get(PUBLICATION_ID),
        None if in_force is None else _decode_epoch(in_force),
        what is None,
    )


@lru_cache(maxsize=1_024)  # nearly all rooms of an app have one of a few
def _encode(history: History) -> bytes:
    return f"{history.size} {history.ttl!r}".encode()


@lru_cache(maxsize=1_024)
def _decode(header: bytes) -> History:
    size, _, ttl = header.partition(b" ")
    return History(int(size), float(ttl))


@lru_cache(maxsize=64)
def _decode_epoch(header: bytes) -> Epoch:
    offset, _, name = header.decode().partition(" ")
    return Epoch(name, int(offset))
