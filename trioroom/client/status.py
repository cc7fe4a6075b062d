"""The state of a client, and who waits for another one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio

from trioroom.client.events import ClientState


class Status:
    """Owned by the client."""

    def __init__(self) -> None:
        self.current = ClientState("connecting")
        self._changed = trio.Event()

    @property
    def is_closed(self) -> bool:
        """For good."""
        return self.current.name == "closed"

    def set(self, state: ClientState) -> None:
        """Change to ``state``; what is closed stays so."""
        if not self.is_closed and state != self.current:
            self.current = state
            self._changed.set()
            self._changed = trio.Event()

    async def wait_changed(self) -> None:
        """Until the next change."""
        await self._changed.wait()

    def follow(self) -> AsyncIterator[ClientState]:
        """The present state, then each change until it is closed; who is slow gets the latest."""
        return _Changes(self)


class _Changes:
    """A class, as an async generator that is left early has to be closed by hand."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._seen: ClientState | None = None

    def __aiter__(self) -> AsyncIterator[ClientState]:
        return self

    async def __anext__(self) -> ClientState:
        await trio.lowlevel.checkpoint()
        while self._status.current is self._seen:
            if self._status.is_closed:
                raise StopAsyncIteration
            await self._status.wait_changed()
        self._seen = self._status.current
        return self._seen
