"""The client's side of protocol v1: requests to frames, frames to what the server says."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from trioroom._wire.codec import CODECS, Codec
from trioroom._wire.envelopes import Encoding, FromServer, Request
from trioroom._wire.frames import Opcode
from trioroom._wire.message import Data
from trioroom.errors import RemoteProtocolError

Payload: TypeAlias = str | bytes
"""Of a text frame, or of a binary one."""
_TYPES = frozenset(("hello", "ok", "error", "message", "kicked", "gap", "position", "presence", "bye"))


class _Head(msgspec.Struct):
    type: str


class ClientCodec:
    """One of the two encodings of v1. Get it from `CLIENT_CODECS`."""

    def __init__(self, codec: Codec) -> None:
        self.subprotocol = codec.subprotocol
        self._encode = codec.encode
        self.is_text = codec.opcode is Opcode.TEXT
        decoder = msgspec.json.Decoder if self.is_text else msgspec.msgpack.Decoder
        self._is_array = codec.is_array
        self._array = decoder(list[msgspec.Raw])
        self._envelope = decoder(FromServer)
        self._head = decoder(_Head)

    def encode(self, requests: Sequence[Request]) -> bytes:
        """The payload of one frame: one request as it is, several as an array."""
        return self._encode(requests[0] if len(requests) == 1 else requests)

    def encode_data(self, data: Data) -> tuple[msgspec.Raw, Encoding | None]:
        """What stands as ``data`` and ``encoding`` in a request.

        Raises:
            TypeError: ``data`` is no text, bytes or JSON value.
        """
        if isinstance(data, bytes) and self.is_text:
            return msgspec.Raw(self._encode(base64.b64encode(data).decode("ascii"))), "base64"
        try:
            return msgspec.Raw(self._encode(data)), None
        except (OverflowError, RecursionError) as exc:
            raise TypeError(f"data cannot be encoded: {exc}") from exc

    def decode(self, payload: Payload) -> list[FromServer]:
        """What a frame says, in order; types that are unknown are for later clients, and left out.

        Raises:
            RemoteProtocolError: it is not this codec's kind of frame, or holds no envelopes.
        """
        if isinstance(payload, str) is not self.is_text:
            raise RemoteProtocolError(f"the server sent a frame of the wrong kind for {self.subprotocol}", 1003)
        raw = payload.encode() if isinstance(payload, str) else payload
        try:
            parts = self._array.decode(raw) if self._is_array(raw) else [raw]
            decoded = [self._decode_one(part) for part in parts]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise RemoteProtocolError(f"the server sent a frame that is no envelope: {exc}", 4000) from exc
        return [envelope for envelope in decoded if envelope is not None]

    def _decode_one(self, raw: bytes | msgspec.Raw) -> FromServer | None:
        try:
            envelope: FromServer = self._envelope.decode(raw)
        except msgspec.ValidationError:
            if self._head.decode(raw).type in _TYPES:
                raise
            return None
        return envelope


def decode_data(data: object, encoding: Encoding | None) -> Data:
    """What a push or a kept message carries.

    Raises:
        RemoteProtocolError: it is said to be base64 and is not.
    """
    if encoding is None:
        return data  # type: ignore[return-value]  # a decoder yields nothing else
    try:
        if isinstance(data, str):
            return base64.b64decode(data, validate=True)
    except ValueError as exc:
        raise RemoteProtocolError(f"the server sent data that is not base64: {exc}", 4000) from exc
    raise RemoteProtocolError("the server sent base64 that is no string", 4000)


CLIENT_CODECS = {subprotocol.rpartition(".")[2]: ClientCodec(codec) for subprotocol, codec in CODECS.items()}
"""By their short names, ``json`` and ``msgpack``."""
