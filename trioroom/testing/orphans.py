"""Whether what has been started has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import trio
from trio.lowlevel import Task
from trio.testing import wait_all_tasks_blocked

from trioroom.debug import lines_of_tasks


@asynccontextmanager
async def assert_no_orphans() -> AsyncIterator[None]:
    """Check that the body leaves no tasks behind, in whatever nursery of this Trio run.

    When it is over, tasks get to run until all of them wait for something; those that were not there before are told
    with the nurseries they run in and the lines they wait in. A body that raises is not checked.

    Raises:
        AssertionError: there are some.
    """
    before = set(all_tasks())
    yield
    await wait_all_tasks_blocked()
    left = [task for task in all_tasks() if task not in before]
    if left:
        count = "1 task is" if len(left) == 1 else f"{len(left)} tasks are"
        tree = "\n".join(await lines_of_tasks(left))
        raise AssertionError(f"{count} left that were not there before; above them those that they run in:\n{tree}")


def all_tasks() -> Iterator[Task]:
    """Of this Trio run."""
    root = trio.lowlevel.current_root_task()
    pending = [] if root is None else [root]
    while pending:
        task = pending.pop()
        yield task
        for nursery in task.child_nurseries:
            pending += nursery.child_tasks
