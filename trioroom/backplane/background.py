"""Running something beside a context's body."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def run_in_background(fn: Callable[..., Awaitable[object]], *, wait_started: bool = False) -> AsyncIterator[None]:
    """Run ``fn`` in a task until the context is left, which cancels it and waits for its end.

    What the body raises comes out as it is, not in a group. If ``fn`` raises, the body is cancelled.

    Args:
        wait_started: it takes ``task_status``, and the body begins when it has started.
    """
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            if wait_started:
                await nursery.start(fn)
            else:
                nursery.start_soon(fn)
            yield
        except trio.Cancelled:
            raise
        except BaseException as exc:  # Ctrl-C too; carried past the nursery, which would wrap it in a group
            failure = exc
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
