"""Counting a server's frames with as little work as may be.

A load generator sees the same message over and over. `FrameCounter.expect` takes one of them, and from then on a read
that holds whole frames of that size is counted by a division: a slice with the size as its step shows all their first
bytes at once, another one all their second bytes, and so on over the head. If each is what is expected, each frame ends
where the next one begins, so the count is exact. All else is parsed frame by frame.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import attrs

from trioroom._wire.frames import Opcode

_FIN, _OPCODE, _LENGTH = 0x80, 0x0F, 0x7F
_EXTENDED = {126: 2, 127: 8}  # bytes of length behind the first two (RFC 6455 §5.2)


def head_bytes(second: int) -> int:
    """Size of an unmasked frame's head, told by its second byte."""
    return 2 + _EXTENDED.get(second & _LENGTH, 0)


@attrs.frozen
class Cut:
    """A frame of which the rest is still to come."""

    left: int = 0
    """Bytes of a data frame's payload, which nobody looks at."""
    counts: bool = False
    """That data frame ends a message."""
    kept: bytes = b""
    """The beginning of a head, or of a control frame."""


_NOTHING = Cut()


class FrameCounter:
    """Counts messages in any number of streams. One that is between two frames takes no memory here."""

    def __init__(self, buffer: bytearray) -> None:
        self.control: list[tuple[int, bytes]] = []
        """Opcode and payload of control frames, in the order they came; for the caller to take out."""
        self.inspect: Callable[[bytes], object] | None = None
        """Called with each data frame that lies whole in one read, unless it is an expected one."""
        self._buffer = buffer
        self._cut: dict[Hashable, Cut] = {}
        self._size = 0
        self._head = b""

    def expect(self, frame: bytes) -> None:
        """Most of what comes will be frames like this one."""
        self._size, self._head = len(frame), frame[: head_bytes(frame[1])]

    def forget(self, stream: Hashable) -> None:
        """It has ended."""
        self._cut.pop(stream, None)

    def take(self, stream: Hashable, end: int) -> int:
        """Messages that have ended in the first ``end`` bytes of the buffer, which are the next ones of ``stream``."""
        if stream not in self._cut and self._run(self._buffer, 0, end) * self._size == end:
            return end // self._size if end else 0
        return self._parse(stream, end)

    def _run(self, data: bytearray, start: int, end: int) -> int:
        """How many expected frames are whole from ``start`` on, one behind the other; 0 also when others are among."""
        size, head = self._size, self._head
        if not size or not data.startswith(head, start, end):
            return 0
        count = (end - start) // size
        if count > 1:
            stop = start + count * size
            for at, byte in enumerate(head):
                if data[start + at : stop : size].count(byte) != count:
                    return 0
        return count

    def _parse(self, stream: Hashable, end: int) -> int:
        data, at, count = self._buffer, 0, 0
        cut = self._cut.pop(stream, _NOTHING)
        if cut.left > end:
            self._cut[stream] = Cut(cut.left - end, cut.counts)
            return 0
        if cut.left:
            at, count = cut.left, int(cut.counts)
        elif cut.kept:  # rare, as a head is cut only where a read ends within its few bytes
            data = bytearray(cut.kept) + data[:end]
            end = len(data)
        while at < end:
            if run := self._run(data, at, end):
                count += run
                at += run * self._size
            else:
                at, ended = self._one(stream, data, at, end)
                count += ended
        return count

    def _one(self, stream: Hashable, data: bytearray, at: int, end: int) -> tuple[int, bool]:
        """The frame at ``at``, of any kind: where it ends here, and whether a message does with it."""
        have = end - at
        if have < 2 or have < (head := head_bytes(data[at + 1])):
            self._cut[stream] = Cut(kept=bytes(data[at:end]))
            return end, False
        first, length = data[at], data[at + 1] & _LENGTH
        if head > 2:
            length = int.from_bytes(data[at + 2 : at + head], "big")
        stop = at + head + length
        if first & _OPCODE < Opcode.CLOSE:
            if stop > end:
                self._cut[stream] = Cut(stop - end, bool(first & _FIN))
                return end, False
            if self.inspect is not None:
                self.inspect(bytes(data[at:stop]))
            return stop, bool(first & _FIN)
        if stop > end:
            self._cut[stream] = Cut(kept=bytes(data[at:end]))
            return end, False
        self.control.append((first & _OPCODE, bytes(data[at + head : stop])))
        return stop, False
