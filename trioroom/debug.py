"""To see what a running program does: its tree of tasks.

It is public API of Trio and of Python that tells: which tasks there are, and which function of theirs awaits which.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Collection, Container, Hashable, Iterator
from types import AsyncGeneratorType, CodeType, CoroutineType, GeneratorType
from typing import TextIO

import attrs
import trio

from trioroom._core.task_groups import MAX_LINES, TaskGroup, kind_of, lines_of

__all__ = ["dump_tasks"]

_TRIO = os.path.dirname(trio.__file__) + os.sep
_SLICE = 200  # tasks between two checkpoints: 1 or 2 ms
_MAX_SAMPLES = 16  # tasks of a group whose lines are looked at; see `_Place.line`
_MAX_FRAMES = 200  # functions that await each other
_OPAQUE = ("async_generator_asend", "async_generator_athrow")  # types without a public name
_IN_NURSERY = "NurseryManager.__aexit__"


async def dump_tasks(file: TextIO | None = None, *, max_lines: int = MAX_LINES) -> None:
    """Write the tree of all tasks of this Trio run: what they are called, how many are alike, and where they wait.

    Tasks that are alike are one line, so the tree of 100,000 connections fits a screen. Others run meanwhile, so
    that it is not the picture of one moment: a task that comes or goes while they are counted may be there or not.

    Args:
        file: where to; None is standard error. It gets the whole text in one piece.
        max_lines: how many lines it may have below the first one; what is left out is counted.

    Cancelled, it has written nothing.
    """
    began = time.monotonic()
    walk = _Walk()
    await walk.run()
    summary = f"{walk.tasks:,} tasks, counted in {time.monotonic() - began:.2f} s"
    text = "\n".join([summary, *lines_of(walk.root, max_lines)]) + "\n"
    file = sys.stderr if file is None else file
    file.write(text)
    file.flush()


@attrs.frozen
class _Place:
    """Where a task waits."""

    own: CodeType | None
    """The innermost function that is not Trio's."""
    awaited: CodeType | None
    """What of Trio that one waits for."""
    holder: object
    """Runs ``own``."""

    def line(self) -> int | None:
        """Of ``own``. Asked for few: the frame object that Python makes for it stays as long as the task does."""
        for attribute in ("cr_frame", "ag_frame", "gi_frame"):
            if (frame := getattr(self.holder, attribute, None)) is not None:
                return int(frame.f_lineno)
        return None

    def key(self) -> Hashable:
        """The same for tasks that wait in the same functions; a code object's own hash looks at all of it."""
        return id(self.own), id(self.awaited)

    def describe(self, lines: set[int]) -> str:
        """For the line of a group whose tasks wait in these lines."""
        awaited = "" if self.awaited is None else self.awaited.co_qualname.replace(_IN_NURSERY, "its nursery")
        if self.own is None:
            return awaited
        file = "/".join(self.own.co_filename.split(os.sep)[-2:])
        numbers = ",".join(str(line) for line in sorted(lines))
        return f"{file}:{numbers} {self.own.co_qualname}" + (f" → {awaited}" if awaited else "")


async def lines_of_tasks(only: Collection[trio.lowlevel.Task], max_lines: int = MAX_LINES) -> list[str]:
    """The tree of these tasks and those above them, as `dump_tasks` writes it."""
    shown: set[trio.lowlevel.Task] = set()
    for each in only:
        task: trio.lowlevel.Task | None = each
        while task is not None and task not in shown:
            shown.add(task)
            task = None if task.parent_nursery is None else task.parent_nursery.parent_task
    walk = _Walk(shown)
    await walk.run()
    return list(lines_of(walk.root, max_lines))


class _Walk:
    """From the root to the leaves, in slices; only what makes tasks alike is kept.

    Args:
        only: leave all others out, with what is below them; None is for all.
    """

    def __init__(self, only: Container[trio.lowlevel.Task] | None = None) -> None:
        self._only = only
        self.root = TaskGroup("all")
        self.tasks = 0
        self._lines: dict[TaskGroup, tuple[_Place, set[int]]] = {}  # places keep the code whose id is a key
        self._of_trio: dict[int, tuple[bool, CodeType]] = {}

    async def run(self) -> None:
        """Count all tasks there are."""
        await trio.lowlevel.checkpoint()
        root = trio.lowlevel.current_root_task()
        assert root is not None, "there is one where a task runs"
        pending: list[Iterator[tuple[trio.lowlevel.Task, TaskGroup, int]]] = [iter([(root, self.root, 0)])]
        while pending:
            if (found := next(pending[-1], None)) is None:
                pending.pop()
                continue
            if (group := self._take(*found)) is not None:
                pending.append(self._children(found[0], group))
            self.tasks += 1
            if self.tasks % _SLICE == 0:
                await trio.lowlevel.checkpoint()
        for each, (place, lines) in self._lines.items():
            each.place = place.describe(lines)

    def _children(
        self, task: trio.lowlevel.Task, group: TaskGroup
    ) -> Iterator[tuple[trio.lowlevel.Task, TaskGroup, int]]:
        for number, nursery in enumerate(task.child_nurseries):
            for child in nursery.child_tasks:
                if self._only is None or child in self._only:
                    yield child, group, number

    def _take(self, task: trio.lowlevel.Task, parent: TaskGroup, nursery: int) -> TaskGroup | None:
        """Count it; None if it has ended since it was listed."""
        place = self._place_of(task.coro)
        if place is None:
            return None
        kind = kind_of(task.name)
        group = parent.below((kind, nursery, place.key()), kind)
        if group is parent:  # too deep
            return group
        group.add(task.name)
        if any(each.cancel_scope.cancel_called for each in task.child_nurseries):
            group.cancelled += 1
        if group.kind == kind and group.count <= _MAX_SAMPLES:
            _, lines = self._lines.setdefault(group, (place, set()))
            if (line := place.line()) is not None:
                lines.add(line)
        return group

    def _place_of(self, coroutine: object) -> _Place | None:
        own = awaited = None
        holder = link = coroutine
        for _ in range(_MAX_FRAMES):
            link = _seen_through(link)
            code, following = _look(link)
            if code is None:
                break
            if not self._is_of_trio(code):
                own, awaited, holder = code, None, link
            elif awaited is None:
                awaited = code
            if following is None:
                break
            link = following
        ended = link is coroutine and getattr(coroutine, "cr_frame", self) is None
        return None if ended else _Place(own, awaited, holder)

    def _is_of_trio(self, code: CodeType) -> bool:
        known = self._of_trio.get(id(code))
        if known is None:
            known = self._of_trio[id(code)] = (code.co_filename.startswith(_TRIO), code)
        return known[0]


def _seen_through(link: object) -> object:
    """What is awaited is mostly what runs; of an asynchronous generator it is one step."""
    if type(link).__name__ not in _OPAQUE:
        return link
    return next((each for each in gc.get_referents(link) if isinstance(each, AsyncGeneratorType)), None)


def _look(link: object) -> tuple[CodeType | None, object]:
    """What runs there, and what it awaits; None for either if Python does not tell."""
    if isinstance(link, CoroutineType):
        return link.cr_code, link.cr_await
    if isinstance(link, GeneratorType):
        return link.gi_code, link.gi_yieldfrom
    if isinstance(link, AsyncGeneratorType):
        return link.ag_code, link.ag_await
    return None, None
