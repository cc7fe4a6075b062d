"""What applications exchange: text, bytes, or JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

Json: TypeAlias = str | int | float | bool | Sequence["Json"] | Mapping[str, "Json"] | None
Data: TypeAlias = Json | bytes
"""What a message may carry: text, bytes, or (in v1) any JSON value."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """What a member sent: ``data`` is text or bytes, verbatim, or in v1 mode any JSON value."""

    data: Data
    publication_id: str | None = None
    """Of a v1 ``publish`` that may be sent twice; `Room.publish` takes it, so that it counts once."""
