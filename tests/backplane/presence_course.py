"""Nodes that come and go at random, and what they put; in the end each is to know what the others have."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import trio

from trioroom.backplane.base import Backplane, PresenceSeat
from trioroom.testing.presence_conformance import Watcher

ROOM = "room/a"


class Course:
    """``open_node`` opens a backplane; ``nursery`` runs what holds it open."""

    def __init__(
        self, open_node: Callable[[], AbstractAsyncContextManager[Backplane]], nursery: trio.Nursery, seed: int
    ) -> None:
        self.random = random.Random(seed)
        self._open_node, self._nursery = open_node, nursery
        self._nodes: dict[int, tuple[PresenceSeat, Watcher, dict[str, bytes], trio.CancelScope]] = {}
        self._numbers = iter(range(1_000))

    async def open_node(self) -> None:
        await self._nursery.start(self._run_node, next(self._numbers))

    async def _run_node(self, number: int, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as scope:
            async with self._open_node() as backplane:
                assert backplane.presence is not None
                watcher = Watcher()
                async with backplane.presence.open(ROOM, watcher, 0.02) as seat:
                    self._nodes[number] = (seat, watcher, {}, scope)
                    task_status.started()
                    await trio.sleep_forever()

    def close_node(self) -> None:
        if len(self._nodes) > 1:
            _, _, _, scope = self._nodes.pop(self.random.choice(list(self._nodes)))
            scope.cancel()

    def change(self) -> None:
        seat, _, rows, _ = self.random.choice(list(self._nodes.values()))
        for _ in range(self.random.randrange(1, 20)):
            user = f"user {self.random.randrange(30)}"
            if self.random.random() < 0.5:
                seat.remove(user)
                rows.pop(user, None)
            else:
                rows[user] = b"%d" % self.random.randrange(1_000)
                seat.put(user, rows[user])

    async def agree(self) -> None:
        """Until each node knows exactly what the others have put."""
        for number, (_, watcher, _, _) in self._nodes.items():
            others = [row for key, node in self._nodes.items() if key != number for row in node[2].items()]
            await watcher.wait_rows(*others)
