"""How one peer is spoken to: plain or v1, compressed or not.

Members that share an `Encoding` get the very same bytes, so a publication is encoded (and
compressed) once for each encoding present in a room, not once for each member.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import msgspec

from trioroom._wire.codec import Codec
from trioroom._wire.deflate import compress
from trioroom._wire.frames import Opcode, encode_frame

_TEXT, _BINARY = Opcode.TEXT, Opcode.BINARY  # looking a member up in its class costs as much as encoding a head


class Encoding:
    """The way from a message to the frame of one kind of peer. Get it from `encoding_for`."""

    __slots__ = ("_frame", "codec", "speaks", "window_bits")

    def __init__(self, codec: Codec | None, window_bits: int | None) -> None:
        self.codec = codec
        self.window_bits = window_bits
        self.speaks = "plain" if codec is None else codec.subprotocol.removeprefix("trioroom.")
        """What to call it: ``plain``, ``v1.json`` or ``v1.msgpack``."""
        self._frame: Callable[[Opcode, bytes], bytes] = encode_frame
        if window_bits is not None:
            self._frame = lambda opcode, payload: encode_frame(opcode, compress(payload, window_bits), compressed=True)

    def message(self, room: str, data: object, sender: str | None, offset: int | None = None) -> bytes:
        """The frame that carries ``data`` to a member of ``room``; plain peers have no word for a position."""
        if self.codec is not None:
            return self._frame(self.codec.opcode, self.codec.push(room, data, sender, offset))
        if isinstance(data, bytes):
            return self._frame(_BINARY, data)
        text = data.encode() if isinstance(data, str) else msgspec.json.encode(data)
        return self._frame(_TEXT, text)

    def envelope(self, envelope: object) -> bytes:
        """The frame that carries one v1 envelope; plain peers have none."""
        assert self.codec is not None
        return self._frame(self.codec.opcode, self.codec.encode(envelope))


@cache
def encoding_for(codec: Codec | None, window_bits: int | None) -> Encoding:
    """The one `Encoding` of its kind; there are few, and members are grouped by identity."""
    return Encoding(codec, window_bits)
