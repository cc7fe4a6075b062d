"""An event that most never wait for: of each active room there are three, and a `trio.Event` takes 270 bytes."""

from __future__ import annotations

import trio


class LazyEvent:
    """As `trio.Event`, which is made when the first one waits."""

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._event: trio.Event | None = None

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._is_set

    def set(self) -> None:
        """It has."""
        self._is_set = True
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Until it has; always a checkpoint."""
        if self._is_set:
            return await trio.lowlevel.checkpoint()
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()
