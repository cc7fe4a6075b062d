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


_MAX_ID = 128  # characters of a publication id


def check_publication_id(publication_id: str | None) -> None:
    """Raises:
    TypeError: it is no text.
    ValueError: it is too short or too long.
    """
    if publication_id is None:
        return
    if not isinstance(publication_id, str):
        raise TypeError(f"publication_id={publication_id!r} must be a string, or None")
    if not 1 <= len(publication_id) <= _MAX_ID:
        raise ValueError(f"publication_id has {len(publication_id)} characters; give it 1 to {_MAX_ID}, at random")


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
        payload = msgspec.msgpack.encode(Publication(data, sender, exclude, key))
        _check(data)  # who publishes is to hear of what members could not be sent, and not each node
    except (OverflowError, UnicodeEncodeError, RecursionError) as exc:
        raise TypeError(f"{exc}; publish text, bytes or JSON values") from exc
    return payload


def decode_publication(payload: bytes) -> Publication:
    """The reverse of `encode_publication`; ``msgspec.DecodeError`` for what another program wrote there.

    All that it gives can be sent to members of any kind.
    """
    try:
        publication = _publication.decode(payload)
        _check(publication.data)
    except (ValueError, TypeError, RecursionError) as exc:  # msgspec's own among them, and text that is no UTF-8
        raise msgspec.DecodeError(str(exc)) from exc
    return publication


def _check(data: object) -> None:
    """Refuse what MessagePack has words for and JSON has not, such as a map as a key: a room's members may use both.

    By doing it, a few levels deeper than in an envelope, as the stack may be deeper then. To look at each value takes
    ten times as long.
    """
    if not isinstance(data, (str, bytes)):
        msgspec.json.encode([[[[[[[[data]]]]]]]])
