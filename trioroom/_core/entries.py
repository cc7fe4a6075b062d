"""Publications of a room in memory, in order, found by their offsets, which may have holes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter

import msgspec

_offset_of = attrgetter("offset")


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A publication, and when it was published."""

    offset: int
    payload: bytes
    since: float


class Entries(deque[Entry]):
    """Oldest first. A queue that is searched now and then: what is in its middle is found in steps of 64."""

    __slots__ = ()

    def after(self, offset: int) -> Iterator[Entry]:
        """Those behind ``offset``."""
        return islice(self, bisect_right(self, offset, key=_offset_of), None)

    def before(self, offset: int, limit: int) -> list[Entry]:
        """The last ``limit`` of those below ``offset``."""
        end = bisect_left(self, offset, key=_offset_of)
        return list(islice(self, max(0, end - limit), end))
