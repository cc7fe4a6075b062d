"""Frames as a client sends and gets them: for adapters and tests."""

from __future__ import annotations

from typing import TypeVar

from trioroom._wire.frames import apply_mask, encode_frame

Buffer = TypeVar("Buffer", bytes, memoryview)
_MASKED, _OPCODE = 0x80, 0x0F
_LONGEST_IN_ONE_BYTE = 125  # lengths of payloads (RFC 6455 §5.2)


def encode_masked(opcode: int, payload: bytes, mask: bytes = b"\0\0\0\0") -> bytes:
    """A whole frame as a client sends it."""
    frame = encode_frame(opcode, payload)
    head = len(frame) - len(payload)
    return bytes((frame[0], frame[1] | _MASKED)) + frame[2:head] + mask + apply_mask(payload, mask)


def take_frame(data: Buffer) -> tuple[int, Buffer, Buffer] | None:
    """Opcode and payload of the first frame in ``data`` as `encode_frame` makes them, and what follows.

    None when it is not whole. It checks nothing: such frames come from us.
    """
    if len(data) < 2:
        return None
    length, body = data[1], 2
    if length > _LONGEST_IN_ONE_BYTE:
        body += 2 if length == 126 else 8
        length = int.from_bytes(data[2:body], "big")
    end = body + length
    return (data[0] & _OPCODE, data[body:end], data[end:]) if len(data) >= end else None
