"""The two encodings of protocol v1: frames to requests, envelopes and publications to frames."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

import msgspec

from trioroom._wire.envelopes import Encoding, Error, HistoryItem, Id, Push, Request
from trioroom._wire.frames import Opcode
from trioroom._wire.message import Data, check_json
from trioroom.errors import RemoteProtocolError


class EnvelopeError(RemoteProtocolError):
    """An envelope that can be answered: the ``error`` to send, with the request's id where it had one."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error


class _Anonymous(msgspec.Struct):
    id: Id | None = None
    type: str | None = None


# A string that is not UTF-8 and endless nesting raise errors that are not msgspec's own.
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_TYPES = ("auth", "join", "leave", "publish", "call", "cancel", "history", "who", "ping")


class Codec:
    """One of the two encodings of v1, chosen by the subprotocol."""

    def __init__(
        self,
        subprotocol: str,
        opcode: Opcode,
        encode: Callable[[object], bytes],
        decoder: Callable[..., msgspec.json.Decoder[list[msgspec.Raw]] | msgspec.msgpack.Decoder[list[msgspec.Raw]]],
        is_array: Callable[[bytes], bool],
    ) -> None:
        self.subprotocol = subprotocol
        self.opcode = opcode
        self.encode = encode
        self.is_array = is_array
        self._request = decoder(Request)
        self._array = decoder(list[msgspec.Raw])
        self._anonymous = decoder(_Anonymous)
        self._data = decoder(object)

    def decode(self, payload: str | bytes) -> list[Request | EnvelopeError]:
        """The requests of one frame, in order; those that are wrong as errors to answer with.

        Raises:
            RemoteProtocolError: not this codec's kind of frame (1003), or not decodable at all (4000).
        """
        if isinstance(payload, str) is (self.opcode is not Opcode.TEXT):
            raise RemoteProtocolError(
                f"{self.subprotocol} is spoken in {self.opcode.name.lower()} frames; send those", 1003
            )
        raw = payload.encode() if isinstance(payload, str) else payload
        try:
            parts = self._array.decode(raw) if self.is_array(raw) else [raw]
        except _UNDECODABLE as exc:
            raise _undecodable(exc) from exc
        return [self._decode_one(part) for part in parts]

    def _decode_one(self, raw: bytes | msgspec.Raw) -> Request | EnvelopeError:
        try:
            request: Request = self._request.decode(raw)  # type: ignore[assignment]  # one decoder type for all
        except msgspec.ValidationError as exc:
            return self._explain(raw, exc)
        except _UNDECODABLE as exc:
            raise _undecodable(exc) from exc
        return request

    def _explain(self, raw: bytes | msgspec.Raw, exc: msgspec.ValidationError) -> EnvelopeError:
        try:
            head: _Anonymous = self._anonymous.decode(raw)  # type: ignore[assignment]  # as above
        except _UNDECODABLE:
            return EnvelopeError(Error(None, "bad_envelope", f"{exc}; send an object with type and id"))
        if head.type not in _TYPES:
            known = ", ".join(_TYPES)
            return EnvelopeError(Error(head.id, "unknown_type", f"type {head.type!r} is not one of {known}"))
        return EnvelopeError(Error(head.id, "bad_envelope", f"{head.type}: {exc}; see the protocol reference"))

    def decode_data(self, raw: msgspec.Raw, encoding: Encoding | None) -> Data:
        """The value a ``publish`` or ``call`` carries.

        Raises:
            ValueError: ``encoding`` is base64 and the data is not.
        """
        try:
            data: Data = self._data.decode(raw)
        except _UNDECODABLE as exc:
            raise ValueError(f"data cannot be decoded: {exc}") from exc
        check_json(data)
        if encoding is None:
            return data
        if not isinstance(data, str):
            raise ValueError('"encoding":"base64" needs data that is a string')
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as exc:
            raise ValueError(f"data is not base64: {exc}") from exc

    def push(self, room: str, data: object, sender: str | None, offset: int | None = None) -> bytes:
        """A ``message`` push, encoded."""
        if isinstance(data, bytes) and self.opcode is Opcode.TEXT:
            return self.encode(Push(room, _base64(data), sender, offset, "base64"))
        return self.encode(Push(room, data, sender, offset))

    def history_item(self, offset: int, data: object, sender: str | None) -> HistoryItem:
        """What a page of the history has of a message; to be encoded by this codec."""
        if isinstance(data, bytes) and self.opcode is Opcode.TEXT:
            return HistoryItem(offset, _base64(data), sender, "base64")
        return HistoryItem(offset, data, sender)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _undecodable(exc: Exception) -> RemoteProtocolError:
    return RemoteProtocolError(f"frame is no envelope: {exc}; send an object with a type", 4000)


def _json_array(raw: bytes) -> bool:
    return raw.lstrip(b" \t\r\n")[:1] == b"["


def _msgpack_array(raw: bytes) -> bool:
    return bool(raw) and (0x90 <= raw[0] <= 0x9F or raw[0] in (0xDC, 0xDD))


JSON = Codec("trioroom.v1.json", Opcode.TEXT, msgspec.json.encode, msgspec.json.Decoder, _json_array)
MSGPACK = Codec("trioroom.v1.msgpack", Opcode.BINARY, msgspec.msgpack.encode, msgspec.msgpack.Decoder, _msgpack_array)
CODECS = {codec.subprotocol: codec for codec in (JSON, MSGPACK)}
