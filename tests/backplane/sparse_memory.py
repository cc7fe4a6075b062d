"""Histories in memory whose rooms share their offsets, as they do in a log: a room's own go up, but not by one."""

from __future__ import annotations

import math

from trioroom._core.archive import Archive
from trioroom._core.history import History, Kept, Position
from trioroom._core.publication_ids import PublicationIds
from trioroom.backplane.memory import MemoryBackplane
from trioroom.backplane.memory_history import MemoryHistory

STEP = 3


class SharedArchive(Archive):
    """Another room takes `STEP` - 1 offsets before each publication."""

    last = 0

    def append(
        self, room: str, payload: bytes, history: History | None, now: float, offset: int | None = None
    ) -> Kept | None:
        self.last += STEP
        return super().append(room, payload, history, now, self.last)


class SparseHistory(MemoryHistory):
    def __init__(self) -> None:
        super().__init__(math.inf, PublicationIds(300, 100_000))
        epochs = iter(map(str, range(1_000_000)))
        self._archive = SharedArchive(math.inf, lambda room: Position(f"epoch {next(epochs)}", 0))

    @property
    def dense_offsets(self) -> bool:
        return False


class SparseMemoryBackplane(MemoryBackplane):
    def __init__(self) -> None:
        super().__init__()
        self._history = SparseHistory()
