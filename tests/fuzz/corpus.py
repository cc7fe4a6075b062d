"""The inputs that are kept: one file for each target, with a bytes literal on each line, so that a change can be read.

Together they reach all that fuzzing has reached so far, and whatever once was wrong.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from hashlib import sha1
from pathlib import Path

DIRECTORY = Path(__file__).with_name("corpus")


def file_of(target: str) -> Path:
    return DIRECTORY / f"{target}.txt"


def read(target: str) -> list[bytes]:
    """The inputs of a target; none where none have been kept yet."""
    file = file_of(target)
    lines = file.read_text("ascii").splitlines() if file.exists() else []
    return [ast.literal_eval(line) for line in lines]


def write(target: str, inputs: Iterable[bytes]) -> None:
    """Keep these and no others, the shortest first."""
    ordered = sorted(set(inputs), key=lambda data: (len(data), data))
    file_of(target).write_text("".join(f"{data!r}\n" for data in ordered), "ascii")


def unpack(inputs: Iterable[bytes], directory: Path) -> None:
    """One file for each, as libFuzzer wants them."""
    directory.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (directory / sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)


def pack(directory: Path) -> list[bytes]:
    """The reverse of `unpack`."""
    return [file.read_bytes() for file in sorted(directory.iterdir()) if file.is_file()]
