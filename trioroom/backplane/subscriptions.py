"""Which channels of the broker this node listens to, and for whom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from trioroom.backplane.channel import Channel, Listener
from trioroom.errors import BackplaneUnavailable


class Subscriber(Protocol):
    """What listens to the broker."""

    def add(self, channel: Channel) -> None:
        """Listen for it, and tell it when it is live."""
        ...

    def remove(self, channel: Channel) -> None:
        """Listen for it no longer."""
        ...


class Subscriptions:
    """One `Channel` for each name, however many listen to it."""

    def __init__(self, subscriber: Subscriber, timeout: float) -> None:
        self._subscriber = subscriber
        self._timeout = timeout
        self._channels: dict[bytes, Channel] = {}

    def __len__(self) -> int:
        return len(self._channels)

    @asynccontextmanager
    async def open(self, name: bytes, listener: Listener, room: str) -> AsyncIterator[None]:
        """Entered when the broker has confirmed it. ``room`` is for the message.

        Raises:
            BackplaneUnavailable: no confirmation within ``timeout``.
            BackplaneError: the broker refused it.
        """
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name)
            channel.add(listener)
            self._subscriber.add(channel)
        else:
            channel.add(listener)
        try:
            with trio.move_on_after(self._timeout) as scope:
                await channel.wait_live()
            if scope.cancelled_caught:
                raise BackplaneUnavailable(
                    f"the broker has not confirmed the subscription of room {room!r} within "
                    f"timeout={self._timeout:g} s; retry later"
                )
            yield
        finally:
            channel.remove(listener)
            if not channel:
                del self._channels[name]
                self._subscriber.remove(channel)
