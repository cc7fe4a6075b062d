"""The tasks of one membership, in a nursery opened at the first of them.

Most of a million members never start a task, and a nursery costs 1.6 KB.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

import trio

Args = TypeVarTuple("Args")


class LazyNursery:
    """Owned by a membership, run by its connection's nursery. ``aclose`` ends what it runs."""

    __slots__ = ("_closing", "_ended", "_ending", "_nursery", "_waiting")

    def __init__(self, parent: trio.Nursery) -> None:
        self._closing = trio.Event()
        self._ending = False
        self._ended = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._waiting: list[Callable[[trio.Nursery], None]] = []
        parent.start_soon(self._run)

    def start_soon(self, fn: Callable[[*Args], Awaitable[object]], *args: *Args) -> None:
        """Start a child, now or as soon as the nursery is open.

        Raises:
            trio.ClosedResourceError: it ends, closed or cancelled together with its parent.
        """
        if self._ending:
            raise trio.ClosedResourceError("this nursery ends; it starts no more tasks")
        if self._nursery is None:
            self._waiting.append(lambda nursery: nursery.start_soon(fn, *args))
        else:
            self._nursery.start_soon(fn, *args)

    async def _run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for start in self._waiting:
                    start(nursery)  # even when closing: each child that was promised begins, and sees its end
                self._waiting.clear()
                try:
                    await self._closing.wait()
                    nursery.cancel_scope.cancel()
                finally:
                    self._ending = True  # from here on Trio closes the nursery as soon as it is empty
        finally:
            self._ended.set()

    async def aclose(self) -> None:
        """Cancel the children and wait until they are gone."""
        self._closing.set()
        await self._ended.wait()
