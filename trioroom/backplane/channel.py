"""A channel of the broker and its local listeners: what comes is offered, never awaited."""

from __future__ import annotations

from typing import Protocol

import attrs
import trio

from trioroom.backplane.base import Delivery, Lost
from trioroom.errors import BackplaneError


class Listener(Protocol):
    """Who gets what comes on a channel."""

    def offer(self, delivery: Delivery) -> None:
        """Take it at once; called by the task that listens to the broker for all rooms."""
        ...


@attrs.define(eq=False)
class Channel:
    """One name at the broker, of which a node may have 100,000. Who has not been live yet is told of no loss."""

    name: bytes
    live: bool = False
    """Confirmed, on a connection that lives: what is published from now on will be heard."""
    generation: int = 0
    """How often it was asked for; a confirmation counts only for the latest."""
    refusal: BackplaneError | None = None
    """Why the broker does not want it, until it does."""
    _listeners: dict[Listener, bool] = attrs.field(factory=dict)  # and whether it has been live
    _changed: trio.Event | None = None  # while somebody waits

    def __len__(self) -> int:
        return len(self._listeners)

    @property
    def interrupted(self) -> bool:
        """Somebody was live here and is not now."""
        return not self.live and any(self._listeners.values())

    def add(self, listener: Listener) -> None:
        """From when the channel is live, or now, ``listener`` gets what comes."""
        self._listeners[listener] = self.live

    def remove(self, listener: Listener) -> None:
        """It gets nothing more."""
        del self._listeners[listener]

    def deliver(self, delivery: Delivery) -> None:
        """To all."""
        for listener in self._listeners:
            listener.offer(delivery)

    def confirm(self) -> None:
        """Live from here on: who was so before is told that it may have missed something."""
        for listener, was_live in self._listeners.items():
            if was_live:
                listener.offer(Lost("backplane"))
        self._listeners = dict.fromkeys(self._listeners, True)
        self.live = True
        self._notify(None)

    def interrupt(self) -> None:
        """Not live any more, for now."""
        self.live = False

    def refuse(self, error: BackplaneError) -> None:
        """The broker does not want it: those who wait for it raise ``error``, and who comes before they have left."""
        self._notify(error)

    def _notify(self, refusal: BackplaneError | None) -> None:
        self.refusal = refusal
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def wait_live(self) -> None:
        """Until it is; always a checkpoint.

        Raises:
            BackplaneError: the broker refused it.
        """
        await trio.lowlevel.checkpoint()
        while not self.live:
            if self.refusal is not None:
                raise BackplaneError(str(self.refusal)) from self.refusal
            if self._changed is None:
                self._changed = trio.Event()
            await self._changed.wait()
