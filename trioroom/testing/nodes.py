"""What the conformance suites run on: nodes that share a broker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from trioroom.backplane.base import Backplane


class ConformanceSuite(ABC):
    """A suite says what it asks of nodes; who subclasses it says how they are opened."""

    deadline = 10.0
    """Seconds a test may take."""

    @abstractmethod
    def open_nodes(self, count: int) -> AbstractAsyncContextManager[Sequence[Backplane]]:
        """``count`` backplanes that share a broker, as if each were in a process of its own.

        The broker keeps nothing from other tests. For a backplane that lives in one process they are ``count`` times
        the same object.
        """

    @asynccontextmanager
    async def nodes(self, count: int) -> AsyncIterator[Sequence[Backplane]]:
        """`open_nodes` under the deadline."""
        with trio.fail_after(self.deadline):
            async with self.open_nodes(count) as nodes:
                yield nodes
