"""Which publications have an id that was used before, as every reader of the log finds for itself."""

from __future__ import annotations

from collections import OrderedDict


class FirstUses:
    """Of one partition; records are shown to it in the order of the log.

    An id that was used within ``ttl`` seconds before is known; each use counts anew. So whether a record is the first
    of its id depends on the ``ttl`` seconds before it and nothing else, and who began to read there finds the same as
    who has always read.
    """

    def __init__(self, ttl: float, max_count: int) -> None:
        self._ttl = ttl
        self._max_count = max_count
        self._used: OrderedDict[tuple[bytes, bytes], tuple[int, float]] = OrderedDict()  # the latest use last

    def __len__(self) -> int:
        return len(self._used)

    def first(self, name: bytes, publication_id: bytes, offset: int, timestamp: float) -> int:
        """The offset of the first record with this id; ``offset`` itself if it is that."""
        known, used_at = self._used.get((name, publication_id), (offset, timestamp))
        first = known if timestamp - used_at < self._ttl else offset
        self._used[name, publication_id] = (first, timestamp)
        self._used.move_to_end((name, publication_id))
        self._forget(timestamp)
        return first

    def look_up(self, name: bytes, publication_id: bytes) -> int | None:
        """The offset of the first record with an id that is known; None if it is not."""
        used = self._used.get((name, publication_id))
        return None if used is None else used[0]

    def clear(self) -> None:
        """The log was made anew: nothing was used in it."""
        self._used.clear()

    def _forget(self, now: float) -> None:
        while self._used:
            _, used_at = next(iter(self._used.values()))
            if len(self._used) <= self._max_count and now - used_at < self._ttl:
                return
            self._used.popitem(last=False)
