"""The connections of one generator process, and the loop that drives them.

A member at rest is a bare descriptor, an entry in one dictionary and nothing else in this process: about 200 bytes.
What comes is read into one buffer for all and counted there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Protocol

from trioroom._wire.client_frames import encode_masked
from trioroom._wire.frames import Opcode
from trioroom.bench.connecting import cut_off
from trioroom.bench.frames import FrameCounter
from trioroom.bench.poller import open_poller
from trioroom.bench.tally import Tally

READ_BYTES = 262_144
TURN = 64
"""Descriptors served between two looks at the clock, at some 2 microseconds each: times are exact to a tenth of a
millisecond."""


class Pending(Protocol):
    """Who reads and writes a descriptor itself."""

    def advance(self) -> None:
        """It is ready for what it was watched for."""
        ...


class Swarm:
    """Members by descriptor. Scenarios set `on_messages` and `on_lost`, call `turn`, and look at the clock between."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.members: dict[int, int] = {}
        """The number of each member, from 0 in each process, by its descriptor."""
        self.pending: dict[int, Pending] = {}
        """Descriptors that are no members, such as those in the handshake."""
        self.leaving: set[int] = set()
        """Members who have said goodbye: the end of their connection is no loss."""
        self._closing: set[int] = set()  # members to whom the server has
        self.on_messages: Callable[[int, int], object] = self._count
        """Called with a descriptor and how many messages came; by default they are counted."""
        self.on_lost: Callable[[int, int], object] = lambda descriptor, number: None
        """Called with descriptor and number of a member whose connection has ended; the descriptor is closed."""
        self._buffer = bytearray(READ_BYTES)
        self._into = (self._buffer,)
        self._unsent: dict[int, bytes] = {}
        self.frames = FrameCounter(self._buffer)
        self.poller = open_poller()

    def turn(self, wait: float) -> None:
        """Serve what is ready, or comes within ``wait`` seconds."""
        if self._unsent:
            wait = min(wait, 0.001)
            self._flush()
        for descriptor, _ in self.poller.poll(wait, TURN):
            if descriptor in self.pending:
                self.pending[descriptor].advance()
            elif count := self._read(descriptor):
                self.on_messages(descriptor, count)

    def adopt(self, descriptor: int, number: int, rest: bytes = b"") -> None:
        """A connection, watched for reading already, has become a member; ``rest`` came behind its handshake."""
        del self.pending[descriptor]
        self.members[descriptor] = number
        self.tally.counts.opened += 1
        if rest:
            self._buffer[: len(rest)] = rest
            if count := self._take(descriptor, len(rest)):
                self.on_messages(descriptor, count)

    def send(self, descriptor: int, frames: bytes) -> None:
        """Whole frames. What the kernel does not take waits here; the server reads too slowly then."""
        if descriptor in self._unsent:
            self._unsent[descriptor] += frames
            return
        try:
            sent = os.write(descriptor, frames)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # its end is read next
        if sent < len(frames):
            self._unsent[descriptor] = frames[sent:]

    def leave(self, descriptor: int, goodbye: bytes) -> None:
        """Say goodbye and let the server close, as RFC 6455 §7.1.1 has it."""
        self.leaving.add(descriptor)
        self.send(descriptor, goodbye)

    def cut(self, descriptors: Iterable[int]) -> None:
        """End these connections from here, at once."""
        for descriptor in list(descriptors):
            self._forget(descriptor)
            del self.members[descriptor]
            cut_off(descriptor)
            self.tally.counts.left += 1

    def close(self) -> None:
        """End all of them."""
        for descriptor in (*self.members, *self.pending):
            cut_off(descriptor)
        self.members.clear()
        self.pending.clear()
        self.poller.close()

    def _read(self, descriptor: int) -> int:
        try:
            size = os.readv(descriptor, self._into)
        except BlockingIOError:
            return 0
        except OSError:
            size = 0
        if not size:
            self._lose(descriptor)
            return 0
        return self._take(descriptor, size)

    def _take(self, descriptor: int, size: int) -> int:
        self.tally.counts.received_bytes += size
        count = self.frames.take(descriptor, size)
        if self.frames.control:
            self._answer(descriptor)
        return count

    def _answer(self, descriptor: int) -> None:
        for opcode, payload in self.frames.control:
            if opcode == Opcode.PING:
                self.tally.counts.pings += 1
                self.send(descriptor, encode_masked(Opcode.PONG, payload))
            elif opcode == Opcode.CLOSE and descriptor not in self.leaving:
                code = int.from_bytes(payload[:2], "big") or 1005
                self.tally.reasons[f"closed by the server with {code} {payload[2:].decode(errors='replace')}"] += 1
                self.send(descriptor, encode_masked(Opcode.CLOSE, payload[:2]))
                self._closing.add(descriptor)
        self.frames.control.clear()

    def _lose(self, descriptor: int) -> None:
        number = self.members.pop(descriptor)
        if descriptor in self.leaving:
            self.tally.counts.left += 1
        else:
            self.tally.counts.closed += 1
            if descriptor not in self._closing:
                self.tally.reasons["lost without a close frame"] += 1
        self._forget(descriptor)
        os.close(descriptor)
        self.on_lost(descriptor, number)

    def _forget(self, descriptor: int) -> None:
        self.poller.forget(descriptor)
        self.frames.forget(descriptor)
        self.leaving.discard(descriptor)
        self._closing.discard(descriptor)
        self._unsent.pop(descriptor, None)

    def _flush(self) -> None:
        waiting, self._unsent = self._unsent, {}
        for descriptor, frames in waiting.items():
            self.send(descriptor, frames)

    def _count(self, descriptor: int, count: int) -> None:
        self.tally.counts.received += count
