"""What applications exchange: text, bytes, or JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

Json: TypeAlias = str | int | float | bool | Sequence["Json"] | Mapping[str, "Json"] | None
Data: TypeAlias = Json | bytes
"""What a message may carry: text, bytes, or (in v1) any JSON value."""

_MAX_NESTING = 64  # levels in published data: what we pass on, another call deeper in its stack must still encode
_SCALARS = (str, bytes, float, bool, type(None))


class Message(msgspec.Struct, frozen=True, gc=False):
    """What a member sent: ``data`` is text or bytes, verbatim, or in v1 mode any JSON value."""

    data: Data
    publication_id: str | None = None
    """Of a v1 ``publish`` that may be sent twice; `Room.publish` takes it, so that it counts once."""


def check_json(data: object) -> None:
    """Refuse what one of the encodings, or the backplane, has no words for: a room's members may use both.

    Raises:
        ValueError: ``data``, as a decoder gave it, holds such a thing.
    """
    level = [data]
    for _ in range(_MAX_NESTING):
        below: list[object] = []
        for value in level:
            if isinstance(value, _SCALARS):
                continue
            if isinstance(value, dict):
                if not all(isinstance(key, str) for key in value):
                    raise ValueError("data has a key that is no string; send its keys as strings")
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif not isinstance(value, int):
                raise ValueError(f"data has a {type(value).__name__}; send JSON values and bytes")
            elif not -(1 << 63) <= value < 1 << 64:
                raise ValueError("data has an integer of more than 64 bits; send it as a string")
        if not below:
            return
        level = below
    raise ValueError(f"data nests deeper than {_MAX_NESTING} levels; flatten it")
