"""A connection's queue of bytes that the kernel would not take, bounded in messages and bytes.

It exists only while it holds something: an idle connection has none.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto


class Verdict(Enum):
    """What became of an offer."""

    QUEUED = auto()
    OVERFLOW = auto()


class Outbox:
    """Bytes waiting for the writer. Owned by one connection; ``clear`` keeps a torn frame's rest."""

    __slots__ = ("_chunks", "_max_bytes", "_max_messages", "_torn", "messages", "queued_bytes", "since")

    def __init__(self, max_bytes: int, max_messages: int, now: float) -> None:
        self._chunks: deque[tuple[bytes, int]] = deque()
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._torn = False
        self.messages = 0
        self.queued_bytes = 0
        self.since = now

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def begin(self, data: bytes, sent: int, messages: int = 1) -> None:
        """Take what the kernel refused of ``data``, whatever its size: its beginning may be on the wire."""
        self._torn = sent > 0
        self._append(data[sent:], messages)

    def offer(self, data: bytes, messages: int = 1) -> Verdict:
        """Queue ``data``, or say that a bound is reached; then nothing of it is kept."""
        if self.queued_bytes + len(data) > self._max_bytes or self.messages + messages > self._max_messages:
            return Verdict.OVERFLOW
        self._append(data, messages)
        return Verdict.QUEUED

    def force(self, data: bytes) -> None:
        """Queue ``data`` past the bounds: for the one close frame that ends a connection."""
        self._append(data, 0)

    def clear(self) -> None:
        """Forget all but the rest of a frame that is partly on the wire."""
        keep = self._chunks.popleft() if self._torn and self._chunks else None
        self._chunks.clear()
        self.messages = self.queued_bytes = 0
        if keep is not None:
            self._append(*keep)

    def take(self, max_bytes: int) -> bytes:
        """The oldest chunks, joined up to about ``max_bytes``; empty when there are none."""
        taken: list[bytes] = []
        size = 0
        while self._chunks and (not taken or size + len(self._chunks[0][0]) <= max_bytes):
            data, messages = self._chunks.popleft()
            taken.append(data)
            size += len(data)
            self.messages -= messages
        self.queued_bytes -= size
        self._torn = False
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def _append(self, data: bytes, messages: int) -> None:
        self._chunks.append((data, messages))
        self.messages += messages
        self.queued_bytes += len(data)
