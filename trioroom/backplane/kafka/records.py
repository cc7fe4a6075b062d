"""What stands in the log: one topic for all rooms, and for what else the nodes have to tell each other.

A record's key is a byte that says what kind it is, and a name, mostly of a room. The kind and the name choose the
partition: what has one name is in one order.
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

ROOM = b"r"
"""A publication of a room without a history; the value is the payload."""
HISTORY = b"h"
"""What a room with a history is made of."""
PRESENCE = b"p"
"""Who is in a room."""
MARK = b"m"
"""Nothing but a place in the log, of which its writer is told the offset. The name is the writer."""

PUBLICATION_ID = "id"
"""The header with a publication's id, UTF-8; see `trioroom.backplane.base.Backplane.publish`."""

UNKNOWN_OFFSET = -1

Headers: TypeAlias = Sequence[tuple[str, bytes]]


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record that was read."""

    partition: int
    offset: int
    timestamp: float
    """Seconds since 1970, by the clock of the broker, or of the writer if the topic's ``message.timestamp.type`` says
    so; -1 where neither has said."""
    kind: bytes
    name: bytes
    """UTF-8; of a room."""
    value: bytes
    headers: Headers

    def header(self, name: str) -> bytes | None:
        """The value of the first header of this name."""
        return next((value for header, value in self.headers if header == name), None)


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a record stands."""

    partition: int
    offset: int
    """`UNKNOWN_OFFSET` if it was sent a second time, and the broker says that it has it and not where."""


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of what has this key, the same on all nodes, for all versions.

    It is what librdkafka's partitioner "consistent" says, so that other programs can write to rooms.
    """
    return crc32(key) % partitions
