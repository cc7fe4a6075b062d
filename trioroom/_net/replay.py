"""What a member missed while it was away, as a batch that all who missed the same share."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from trioroom._core.batch import Batch, batch_of
from trioroom._core.overflow import Overflow
from trioroom._wire.publication import Publication, decode_publication

if TYPE_CHECKING:
    from trioroom._core.budget import Budget
    from trioroom._core.entries import Entry
    from trioroom._core.history import Kept
    from trioroom._core.overflow import Feed
    from trioroom._core.window import Window
    from trioroom._wire.encoding import Encoding
    from trioroom.room import Room


def publications_of(entries: Iterable[Entry | Kept]) -> list[tuple[int, Publication]]:
    """With their offsets, without what is none: another program may have put it there."""
    found: list[tuple[int, Publication]] = []
    for entry in entries:
        try:
            found.append((entry.offset, decode_publication(entry.payload)))
        except msgspec.DecodeError:  # the fan-out has logged it
            continue
    return found


_MAX_BATCHES = 16
_MESSAGE_BYTES = 300  # what an encoded message takes beside its frame: the record, the publication and its decoded data


class _Message(NamedTuple):
    offset: int
    publication: Publication
    frame: bytes


class Replay:
    """Of one room. Encoded once for each kind of peer, until the window moves on; charged to the server's budget."""

    __slots__ = ("_batches", "_budget", "_messages", "_room", "_window", "queued_bytes")

    def __init__(self, room: Room, window: Window, budget: Budget) -> None:
        self._room = room
        self._window = window
        self._budget = budget
        self._messages: dict[Encoding, tuple[float, list[_Message]]] = {}  # and the offset behind which they are all
        self._batches: OrderedDict[tuple[Encoding, int], Batch | None] = OrderedDict()  # the latest used is the last
        self.queued_bytes = 0
        """What is kept encoded."""

    def forget(self) -> None:
        """The window has moved."""
        self._messages.clear()
        self._batches.clear()
        self._count(-self.queued_bytes)

    def _count(self, size: int) -> None:
        self.queued_bytes += size
        self._budget.add(size)

    def after(self, offset: int, feed: Feed, encoding: Encoding, member: str) -> Batch | None:
        """What is behind ``offset``, to which the window reaches, for the member of this id; None for nothing."""
        messages = self._after(offset, encoding)
        if any(message.publication.exclude == member for message in messages):
            return self._join(feed, [message for message in messages if message.publication.exclude != member])
        if (encoding, offset) not in self._batches:
            self._keep((encoding, offset), self._join(feed, messages))
        self._batches.move_to_end((encoding, offset))
        return self._batches[encoding, offset]

    def _keep(self, key: tuple[Encoding, int], batch: Batch | None) -> None:
        # A few: those who were cut off together come back together. Which offsets there are is up to the peers.
        self._batches[key] = batch
        self._count(_size(batch))
        if len(self._batches) > _MAX_BATCHES:
            self._count(-_size(self._batches.popitem(last=False)[1]))

    def _after(self, offset: int, encoding: Encoding) -> list[_Message]:
        start, messages = self._messages.get(encoding, (math.inf, []))
        if offset < start:
            name = self._room.name
            messages = [
                _Message(number, publication, encoding.message(name, publication.data, publication.sender, number))
                for number, publication in publications_of(self._window.after(offset))
            ]
            before = self._messages.get(encoding, (math.inf, []))[1]
            self._count(_size_of(messages) - _size_of(before))
            self._messages[encoding] = (offset, messages)
        return messages if offset <= start else [message for message in messages if message.offset > offset]

    def _join(self, feed: Feed, messages: list[_Message]) -> Batch | None:
        if not messages:
            return None
        keyed = self._room.overflow is Overflow.LATEST
        keys = [message.publication.key for message in messages] if keyed else None
        return batch_of(feed, [message.frame for message in messages], keys)


def _size(batch: Batch | None) -> int:
    return 0 if batch is None else len(batch.data)


def _size_of(messages: list[_Message]) -> int:
    return sum(_MESSAGE_BYTES + len(message.frame) for message in messages)
