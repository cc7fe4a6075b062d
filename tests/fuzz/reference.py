"""RFC 6455 §5 and §7 read once more, from a whole stream and with no care for speed or memory.

`FrameParser` is compared with it. It is written from the RFC, and for the order of its checks from what the parser
promises: the head is looked at before the payload, and text as it comes.
"""

from __future__ import annotations

import codecs
import zlib

import attrs

from trioroom._wire.frames import Close, Event, Ping, Pong
from trioroom._wire.message import Message

CONTINUATION, TEXT, CLOSE, PING = 0, 1, 8, 9
CODES_OF_CLOSE = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


class Violation(Exception):
    """Its argument is the code to close with."""


@attrs.frozen
class Frame:
    fin: bool
    rsv: int
    opcode: int
    masked: bool
    length: int
    shortest: bool
    payload: bytes
    """Unmasked, as much as there is of it."""
    whole: bool
    """Its mask and all of its payload are there."""
    end: int


@attrs.define
class Reading:
    """One stream."""

    max_message_bytes: int
    max_fragments: int
    inflate: bool
    events: list[Event] = attrs.Factory(list)
    close_code: int | None = None
    _opcode: int | None = None
    """Of the message under way."""
    _compressed: bool = False
    _parts: list[bytes] = attrs.Factory(list)

    def read(self, stream: bytes) -> None:
        at = 0
        try:
            while (frame := frame_at(stream, at)) is not None:
                self._check(frame)
                self._take(frame)
                if not frame.whole or frame.opcode == CLOSE:
                    return
                at = frame.end
        except Violation as violation:
            (self.close_code,) = violation.args

    def _check(self, frame: Frame) -> None:
        begins = self._opcode is None
        if not frame.shortest or frame.opcode not in (0, 1, 2, 8, 9, 10) or not frame.masked:
            raise Violation(1002)
        if frame.opcode >= CLOSE:
            if frame.rsv or not frame.fin or frame.length > 125:
                raise Violation(1002)
            return
        may_be_compressed = self.inflate and frame.opcode != CONTINUATION
        if frame.rsv and not (may_be_compressed and frame.rsv == 4):
            raise Violation(1002)
        if begins == (frame.opcode == CONTINUATION) or frame.length >= 1 << 63:
            raise Violation(1002)
        bound = self.max_message_bytes
        if frame.rsv if begins else self._compressed:
            bound += bound // 8 + 64
        if sum(map(len, self._parts)) + frame.length > bound or len(self._parts) == self.max_fragments:
            raise Violation(1009)

    def _take(self, frame: Frame) -> None:
        if frame.opcode >= CLOSE:
            if frame.whole:
                self.events.append(control(frame))
            return
        if frame.opcode != CONTINUATION:
            self._opcode, self._compressed = frame.opcode, bool(frame.rsv)
        self._parts.append(frame.payload)
        payload, last = b"".join(self._parts), frame.fin and frame.whole
        if self._opcode == TEXT and not self._compressed:
            decode(payload, last)
        if last:
            payload = self._inflated(payload) if self._compressed else payload
            self.events.append(Message(decode(payload, True) if self._opcode == TEXT else payload))
            self._opcode = None
            self._parts.clear()

    def _inflated(self, payload: bytes) -> bytes:
        inflater = zlib.decompressobj(-15)
        try:
            # What is too much before it turns out to be wrong is too much.
            message = inflater.decompress(payload, self.max_message_bytes + 1)
            if len(message) > self.max_message_bytes:
                raise Violation(1009)
            message += inflater.decompress(inflater.unconsumed_tail + b"\0\0\xff\xff")
            ended = inflater.eof or (not inflater.decompress(b"\x03\0") and inflater.eof)
        except zlib.error:
            raise Violation(1007) from None
        if not ended or inflater.unused_data not in (b"", b"\0\0\xff\xff", b"\0\0\0\xff\xff"):
            raise Violation(1007)
        return message


def frame_at(stream: bytes, at: int) -> Frame | None:
    """The frame that begins there, if its length is known: without its mask and payload it has none of it."""
    if len(stream) < at + 2:
        return None
    first, second = stream[at : at + 2]
    length, width = second & 0x7F, {126: 2, 127: 8}.get(second & 0x7F, 0)
    at += 2 + width
    if len(stream) < at:
        return None
    shortest = True
    if width:
        length = int.from_bytes(stream[at - width : at], "big")
        shortest = length > (125 if width == 2 else 65_535)
    mask, masked = stream[at : at + 4], stream[at + 4 : at + 4 + length]
    payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked))
    fin, rsv, opcode = bool(first & 0x80), first >> 4 & 7, first & 15
    end = at + 4 + length
    return Frame(fin, rsv, opcode, bool(second & 0x80), length, shortest, payload, end <= len(stream), end)


def control(frame: Frame) -> Event:
    if frame.opcode != CLOSE:
        return Ping(frame.payload) if frame.opcode == PING else Pong(frame.payload)
    if not frame.payload:
        return Close(1005, "")
    code = int.from_bytes(frame.payload[:2], "big")
    if len(frame.payload) == 1 or code not in CODES_OF_CLOSE:
        raise Violation(1002)
    return Close(code, decode(frame.payload[2:], True))


def decode(payload: bytes, final: bool) -> str:
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(payload, final)
    except UnicodeDecodeError:
        raise Violation(1007) from None
