"""Cancelling at a chosen moment, so that a test can try every one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio


@attrs.define(eq=False)
class _Countdown(trio.abc.Instrument):
    scope: trio.CancelScope
    left: int

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


@contextmanager
def cancel_at_step(step: int) -> Iterator[trio.CancelScope]:
    """A scope that is cancelled after ``step`` steps of Trio's tasks, counted over all of them; 0 is at once.

    A step is what a task does between two moments at which others may run. A body that ends earlier
    leaves ``cancelled_caught`` false, and no larger ``step`` would tell more::

        for step in itertools.count():
            with cancel_at_step(step) as scope:
                await scenario()
            check_that_nothing_leaks()
            if not scope.cancelled_caught:
                break
    """
    with trio.CancelScope() as scope:
        if step == 0:
            scope.cancel()
        countdown = _Countdown(scope, step)
        trio.lowlevel.add_instrument(countdown)
        try:
            yield scope
        finally:
            trio.lowlevel.remove_instrument(countdown)
