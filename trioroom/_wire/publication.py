"""The record of a publication on its way through the backplane, in MessagePack."""

from __future__ import annotations

import msgspec

from trioroom._wire.message import Data


class Publication(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What crosses the backplane: a message, who sent it, the member that must not get it, what it is the latest of."""

    data: object
    sender: str | None = None
    exclude: str | None = None
    key: str | None = None


_publication = msgspec.msgpack.Decoder(Publication)


def encode_publication(
    data: Data, sender: str | None = None, exclude: str | None = None, key: str | None = None
) -> bytes:
    """The payload that goes through the backplane.

    Raises:
        TypeError: ``data`` holds something other than text, bytes and JSON values, or ``key`` is no text.
    """
    if key is not None and not isinstance(key, str):
        raise TypeError(f"key={key!r} must be a string, or None")
    try:
        return msgspec.msgpack.encode(Publication(data, sender, exclude, key))
    except OverflowError as exc:
        raise TypeError(f"{exc}; publish it as a string") from exc


def decode_publication(payload: bytes) -> Publication:
    """The reverse of `encode_publication`; ``msgspec.DecodeError`` for what another program wrote there."""
    try:
        return _publication.decode(payload)
    except (UnicodeDecodeError, RecursionError) as exc:
        raise msgspec.DecodeError(str(exc)) from exc
