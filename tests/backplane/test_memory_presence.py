"""Presence in one process: what all stores promise, and that neighbours see each other at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from trioroom.backplane.base import Backplane
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import PresenceConformance
from trioroom.testing.presence_conformance import Watcher


class TestConformance(PresenceConformance):
    @asynccontextmanager
    async def open_nodes(self, count: int) -> AsyncIterator[Sequence[Backplane]]:
        yield [MemoryBackplane()] * count  # one process is one node


async def test_neighbours_see_each_other_at_once() -> None:
    store = MemoryBackplane().presence
    here, there = Watcher(), Watcher()
    async with store.open("room/a", here, 60.0) as one, store.open("room/a", there, 60.0) as two:
        one.put("ann", b"1")
        two.put("bob", b"2")
        assert (here.rows(), there.rows()) == ([("bob", b"2")], [("ann", b"1")])
        one.remove("ann")
        assert there.rows() == []


async def test_room_that_nobody_sits_in_takes_no_memory() -> None:
    store = MemoryBackplane().presence
    async with store.open("room/a", Watcher(), 1.0), store.open("room/b", Watcher(), 1.0):
        assert len(store._rooms) == 2
    assert store._rooms == {}
