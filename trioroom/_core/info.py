"""What a user shows of itself: a small JSON value, kept encoded."""

from __future__ import annotations

import msgspec

MAX_INFO_BYTES = 1024
MAX_USER_CHARACTERS = 128
NOTHING = b"null"


def check_user(user: object) -> str:
    """The user id.

    Raises:
        TypeError: it is no string.
        ValueError: it is empty, too long, or has no UTF-8.
    """
    if not isinstance(user, str):
        raise TypeError(f"user={user!r} must be a string; str() makes one of a number")
    if not 1 <= len(user) <= MAX_USER_CHARACTERS:
        raise ValueError(f"user of {len(user)} characters; it needs 1 to {MAX_USER_CHARACTERS}")
    user.encode()  # half a surrogate pair cannot be sent
    return user


def encode_info(info: object) -> bytes:
    """``info`` as JSON.

    Raises:
        TypeError: it is no JSON value.
        ValueError: it is larger than `MAX_INFO_BYTES`, or has a number or text that JSON has no words for.
    """
    try:
        encoded = msgspec.json.encode(info)
        msgspec.msgpack.encode(msgspec.json.decode(encoded))  # members may speak either
    except OverflowError as exc:
        raise ValueError(f"info has an integer of more than 64 bits; make it a string: {exc}") from exc
    if len(encoded) > MAX_INFO_BYTES:
        raise ValueError(f"info of {len(encoded)} bytes of JSON exceeds {MAX_INFO_BYTES}; keep to what a list shows")
    return encoded


def decode_info(encoded: bytes) -> object:
    """What `encode_info` was given; None for what is no JSON, for a row may come from another version."""
    try:
        return msgspec.json.decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
