"""A task beside the body of a context."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Protocol

import trio


class Started(Protocol):
    """A function for ``nursery.start``."""

    def __call__(self, *, task_status: trio.TaskStatus[None]) -> Awaitable[None]: ...


@asynccontextmanager
async def beside(fn: Started) -> AsyncIterator[None]:
    """Run ``fn``, which has started when the body begins, until it ends. What the body raises comes out as it is."""
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(fn)
        try:
            yield
        except trio.Cancelled:
            raise
        except BaseException as exc:  # carried past the nursery, which would wrap it in a group
            failure = exc
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
