"""A tree of tasks in which those that are alike are one line, so that 100,000 connections can be read on a screen.

Alike are tasks of the same nursery, or of nurseries of tasks that are alike, that have the same kind of name and wait
in the same functions. The kind of ``room chat/lobby`` is ``room``, that of ``player-17`` is ``player-#``: what follows
the first space, and numbers, tell one from another.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Hashable, Iterator
from functools import lru_cache

import attrs

MAX_LINES = 200
"""Of a whole tree, unless one asks for another number."""
_MAX_DEPTH = 40  # nurseries in nurseries; what is deeper counts with the last
_MAX_GROUPS = 500  # that the tasks of one group can have below them; all others are one
_MAX_SHOWN = 20  # of these, in the lines
_MAX_NAMES = 3
_MAX_NAME = 60  # characters


@lru_cache(1024)  # most are called the same
def kind_of(name: str) -> str:
    """What tasks that are called alike have in common."""
    return re.sub(r"\d+", "#", name.partition(" ")[0])


@attrs.define(eq=False)
class TaskGroup:
    """Tasks that are alike; filled by who walks the tree, one `add` for each."""

    kind: str
    place: str = ""
    """Where they wait."""
    depth: int = 0
    count: int = 0
    cancelled: int = 0
    """How many have been told to end, or part of what they do."""
    deeper: int = 0
    """Tasks below that are too deep to be told apart."""
    names: list[str] = attrs.field(factory=list)
    """Of some of them, each other."""
    groups: dict[Hashable, TaskGroup] = attrs.field(factory=dict)
    """Of the tasks in their nurseries, by what makes them alike."""

    def below(self, key: Hashable, kind: str) -> TaskGroup:
        """The group of a task in a nursery of one of these."""
        if self.depth >= _MAX_DEPTH:
            self.deeper += 1
            return self
        if (found := self.groups.get(key)) is None:
            if len(self.groups) >= _MAX_GROUPS:
                key, kind = None, "others"
            found = self.groups.setdefault(key, TaskGroup(kind, depth=self.depth + 1))
        return found

    def add(self, name: str) -> None:
        """One more, which is called so."""
        self.count += 1
        if len(self.names) <= _MAX_NAMES and name not in self.names:
            self.names.append(name)

    def total(self) -> int:
        """Tasks of this group and below."""
        return self.count + self.deeper + sum(group.total() for group in self.groups.values())

    def __str__(self) -> str:
        cancelled = f" [{self.cancelled:,} cancelled]" if self.cancelled else ""
        place = f"  {self.place}" if self.place else ""
        deeper = f" [{self.deeper:,} deeper]" if self.deeper else ""
        return f"{self._called()}{cancelled}{deeper}{place}"

    def _called(self) -> str:
        if len(self.names) < 2:
            called, examples = self.names[0] if self.names else self.kind, ""
        else:
            shown = [_shortened(name.removeprefix(f"{self.kind} ")) for name in self.names[:_MAX_NAMES]]
            called, examples = self.kind, f" ({', '.join(shown)}{', …' * (len(self.names) > _MAX_NAMES)})"
        times = f" ×{self.count:,}" if self.count != 1 else ""
        return _shortened(called) + times + examples


def lines_of(root: TaskGroup, max_lines: int = MAX_LINES) -> Iterator[str]:
    """The groups below ``root``, the largest first, indented; what is left out is counted where it would be.

    When there are too many it is the deepest ones that are left out.
    """
    chosen: dict[TaskGroup, list[TaskGroup]] = {}
    waiting, left = deque([root]), max_lines
    while waiting:
        group = waiting.popleft()
        ordered = sorted(group.groups.values(), key=lambda each: (-each.count, each.kind, each.place))
        room = left if len(ordered) <= left else left - 1  # one is for how many there are besides
        chosen[group] = shown = ordered[: max(0, min(_MAX_SHOWN, room))]
        left -= len(shown) + (len(shown) < len(ordered))
        waiting += shown
    yield from _lines(root, chosen, "")


def _lines(group: TaskGroup, chosen: dict[TaskGroup, list[TaskGroup]], indent: str) -> Iterator[str]:
    shown = chosen[group]
    hidden = [each for each in group.groups.values() if each not in shown]
    for each in shown:
        below = f" [{each.total() - each.count:,} below]" if each.groups and not chosen[each] else ""
        yield f"{indent}{each}{below}"
        yield from _lines(each, chosen, indent + "  ")
    if hidden and shown:
        yield f"{indent}… and {sum(each.total() for each in hidden):,} tasks in {len(hidden):,} other groups"


def _shortened(text: str) -> str:
    """In one line, and no longer than one can read."""
    shown = text if text.isprintable() else ascii(text)[1:-1]
    half = _MAX_NAME // 2  # a room's name tells the most at its beginning, a function's at its end
    return shown if len(shown) <= _MAX_NAME else f"{shown[: half - 1]}…{shown[-half:]}"
