"""What a record costs: decoding a ``join`` into a Struct and into attrs, making and holding one.

Run it with ``python tests/benchmarks/envelope_decode.py``; decision 0002 quotes it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import timeit
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import attrs
import msgspec
from attrs.validators import instance_of, optional

from trioroom._wire.codec import JSON
from trioroom._wire.envelopes import Join
from trioroom._wire.message import Message

FRAME = '{"type":"join","id":2,"room":"chat/lobby","position":{"epoch":"e7f1","offset":41}}'
RAW = FRAME.encode()


@attrs.frozen
class AttrsPosition:
    epoch: str = attrs.field(validator=instance_of(str))
    offset: int = attrs.field(validator=instance_of(int))


@attrs.frozen
class AttrsJoin:
    id: int | str = attrs.field(validator=instance_of((int, str)))
    room: str = attrs.field(validator=instance_of(str))
    position: AttrsPosition | None = attrs.field(default=None, validator=optional(instance_of(AttrsPosition)))


@attrs.frozen
class AttrsMessage:
    data: object


class TrackedMessage(msgspec.Struct, frozen=True):
    data: object


class Head(msgspec.Struct):
    type: str


_head = msgspec.json.Decoder(Head)
_bare = msgspec.json.Decoder(AttrsJoin)


def with_json_and_attrs() -> AttrsJoin:
    record = json.loads(RAW)
    if record.pop("type") != "join":
        raise ValueError("no join")
    position = record.pop("position", None)
    return AttrsJoin(position=position and AttrsPosition(**position), **record)


def with_msgspec_and_attrs() -> AttrsJoin:
    """attrs has no tags: a first pass finds the type, a second one decodes."""
    if _head.decode(RAW).type != "join":
        raise ValueError("no join")
    return _bare.decode(RAW)


def nanoseconds(fn: Callable[[], object], number: int = 100_000) -> float:
    return min(timeit.repeat(fn, number=number, repeat=7)) / number * 1e9


def main() -> None:
    libraries = ", ".join(f"{name} {version(name)}" for name in ("msgspec", "attrs"))
    print(f"Python {platform.python_version()}, {libraries}, {os.cpu_count()} cores, {platform.machine()}")
    assert isinstance(JSON.decode(FRAME)[0], Join)
    struct = msgspec.json.Decoder(Join)
    for name, decode in {
        "tagged union of Structs, Codec.decode, whole": lambda: JSON.decode(FRAME),
        "msgspec into one Struct": lambda: struct.decode(RAW),
        "msgspec into attrs, type first": with_msgspec_and_attrs,
        "json.loads, then attrs with validators": with_json_and_attrs,
    }.items():
        print(f"decode a join: {name}: {nanoseconds(decode):,.0f} ns")
    for kind in (Message, TrackedMessage, AttrsMessage):
        size = sys.getsizeof(kind("x"))
        print(f"make a {kind.__name__}: {nanoseconds(partial(kind, 'x')):,.0f} ns, {size} bytes")


if __name__ == "__main__":
    main()
