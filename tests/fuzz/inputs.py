"""How a target takes what it needs off the bytes it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import TypeAlias

from tests.fuzz.names import NAMES, REQUESTS

_LARGE = (1 << 31, (1 << 53) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63))

Target: TypeAlias = Callable[[bytes], None]
"""Does something with any bytes and asserts what has to hold; the same bytes, the same course."""


def split(data: bytes, parameters: int) -> tuple[bytes, bytes]:
    """The first bytes of ``data``, zeros where it has too few, and what follows them."""
    return data[:parameters].ljust(parameters, b"\0"), data[parameters:]


def cut(data: bytes, how: int) -> Iterator[bytes]:
    """``data`` in chunks as a peer may send it; with 0, byte by byte.

    The chunks of two sizes take turns, and the second one may be empty.
    """
    at = 0
    for size in cycle((1 + (how & 7), how >> 3 or how)):
        if at >= len(data):
            return
        yield data[at : at + size]
        at += size


class Source:
    """Bytes that decisions are made of, one by one; zeros when there are no more."""

    def __init__(self, data: bytes) -> None:
        self._rest = iter(data)

    def below(self, bound: int) -> int:
        return next(self._rest, 0) % bound

    def text(self) -> str:
        return bytes(self.below(256) for _ in range(self.below(8))).decode("latin-1")


def build(source: Source, depth: int) -> object:
    """A value of a frame: envelopes mostly, or nearly so. With ``depth`` 3 an array of them."""
    if depth == 3:
        return [_envelope(source) for _ in range(source.below(4))]
    return _envelope(source)


def _envelope(source: Source) -> object:
    if source.below(16) == 15:
        return _value(source, 2)
    envelope: dict[str, object] = {"type": REQUESTS[source.below(len(REQUESTS))], "id": source.below(4)}
    for name in ("room", "token")[: source.below(3)]:
        envelope[name] = source.text()
    for _ in range(source.below(5)):
        envelope[NAMES[source.below(len(NAMES))]] = _value(source, 3)
    return envelope


def _value(source: Source, depth: int) -> object:
    kind = source.below(12)
    if kind < 4:
        return (None, False, True, "base64")[kind]
    if kind == 4:
        return source.below(256) - 100
    if kind == 5:
        return _LARGE[source.below(len(_LARGE))]
    if kind == 6:
        return (0.5, 1.0, -0.0, 1e300, 5e-324, 1e16)[source.below(6)]
    if kind == 7 or depth == 0:
        return source.text()
    if kind == 8:
        return NAMES[source.below(len(NAMES))]
    if kind == 9:
        return {"epoch": source.text(), "offset": _value(source, 0)}
    if kind == 10:
        return [_value(source, depth - 1) for _ in range(source.below(4))]
    return {source.text(): _value(source, depth - 1) for _ in range(source.below(4))}
