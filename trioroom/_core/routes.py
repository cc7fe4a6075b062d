"""Which room class serves a room's name: patterns such as ``chat/{name}``."""

from __future__ import annotations

import re
from typing import Generic, TypeVar

T = TypeVar("T")
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Routes(Generic[T]):
    """Patterns in the order they were added; the first that matches wins."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], T]] = []

    def add(self, pattern: str, target: T) -> None:
        """Send names that match ``pattern`` to ``target``; ``{name}`` stands for one non-empty segment.

        Raises:
            ValueError: the pattern is empty, starts or ends with a slash, repeats a parameter or is there already.
        """
        if not pattern or pattern != pattern.strip("/"):
            raise ValueError(f"route pattern {pattern!r} must not be empty nor start or end with '/'")
        if any(known == pattern for known, _, _ in self._routes):
            raise ValueError(f"route pattern {pattern!r} is there already; each pattern has one room class")
        self._routes.append((pattern, re.compile(_to_regex(pattern)), target))

    def match(self, name: str) -> tuple[T, dict[str, str]] | None:
        """The target and parameters for ``name``, or None when no pattern fits."""
        for _, regex, target in self._routes:
            if found := regex.fullmatch(name):
                return target, found.groupdict()
        return None

    def targets(self) -> list[T]:
        """What they lead to, in the same order as `patterns`."""
        return [target for _, _, target in self._routes]

    def patterns(self) -> list[str]:
        """The patterns, first one first."""
        return [pattern for pattern, _, _ in self._routes]


def fault_of_name(name: str, max_bytes: int, pattern: str) -> str | None:
    """Why no room may be called ``name``, whatever the routes say; None if one may."""
    if (size := len(name.encode())) > max_bytes:
        return f"name of {size} bytes exceeds max_room_name_bytes={max_bytes}; choose a shorter one"
    if not name.isprintable():  # line ends and the like: it would look like another one in a log, or spoil the log
        return f"name {name!r} has a character that does not print; leave it out"
    if re.fullmatch(pattern, name) is None:
        return f"name {name!r} does not match room_name_pattern={pattern!r}"
    return None


def _to_regex(pattern: str) -> str:
    parts: list[str] = []
    seen: set[str] = set()
    end = 0
    for found in _PARAMETER.finditer(pattern):
        if found[1] in seen:
            raise ValueError(f"route pattern {pattern!r} names {{{found[1]}}} twice; each needs a name of its own")
        seen.add(found[1])
        parts += [re.escape(pattern[end : found.start()]), f"(?P<{found[1]}>[^/]+)"]
        end = found.end()
    rest = pattern[end:]
    parts.append(re.escape(rest))
    if any(brace in part for part in parts for brace in "{}"):
        raise ValueError(f"route pattern {pattern!r} has a brace that is no {{parameter}}; write one as {{name}}")
    return "".join(parts)
