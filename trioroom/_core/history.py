"""What a room keeps of its publications, and how a place among them is named."""

from __future__ import annotations

import math

import attrs
import msgspec
from attrs import validators

from trioroom._core.checks import COUNT, POSITIVE


@attrs.frozen
class History:
    """How much a room keeps: the last ``size`` publications, none of them longer than ``ttl`` seconds."""

    size: int = attrs.field(validator=COUNT)
    """How many publications, 1 or more."""
    ttl: float = attrs.field(default=300.0, validator=[POSITIVE, validators.lt(math.inf)])
    """Seconds; by default long enough for a tunnel, a lift and a phone that was put away for a moment."""


class Position(msgspec.Struct, frozen=True):
    """A place in a room's history: behind all publications up to this offset, and before the next one.

    Offsets begin at 1 or later and go up within an epoch, not always by one. Another epoch is another history: its
    offsets say nothing of this one.
    """

    epoch: str
    """The name of the history, a text that means nothing else."""
    offset: int
    """How far in it, a number that has a meaning in this epoch only."""


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A publication that the room's history keeps, with its position."""

    epoch: str
    offset: int
    payload: bytes
    age: float = 0.0
    """Seconds since it was published, when it was read from the history."""
    follows: int | None = None
    """The lowest place known behind which it is the next one; None is ``offset - 1``."""

    @property
    def place_before(self) -> int:
        """`follows`, told or not."""
        return self.offset - 1 if self.follows is None else self.follows


class Page(msgspec.Struct, frozen=True):
    """A part of a room's history, as the backplane has it, and where that ends."""

    position: Position
    """Behind the latest publication: its offset, or any place up to which there is no other one."""
    previous: Position | None
    """Where this epoch goes on from: up to this place in the epoch before nothing differs. None is nowhere."""
    start: int
    """The offset behind which all is still held: that of the latest one that is gone, or as near to it as is known."""
    kept: tuple[Kept, ...]
    """Oldest first; none of the room's is missing between the first and the last."""


def same_place(position: Position, end: Position, previous: Position | None) -> Position | None:
    """``position`` in the epoch of ``end``; None where that says nothing of it, or does not have it any more.

    Args:
        previous: see `Page.previous`.
    """
    if position.epoch == end.epoch:
        known = position.offset <= end.offset
    else:
        known = previous is not None and position.epoch == previous.epoch and position.offset <= previous.offset
    return Position(end.epoch, position.offset) if known and position.offset >= 0 else None
