"""Which channels of the broker this node listens to, and for whom."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, Protocol, TypeVar

import trio

from trioroom.backplane.channel import Channel, Listener
from trioroom.errors import BackplaneUnavailable

Chosen = TypeVar("Chosen", bound=Channel, contravariant=True)
Kind = TypeVar("Kind", bound=Channel)


class Subscriber(Protocol[Chosen]):
    """What listens to the broker."""

    def add(self, channel: Chosen, /) -> None:
        """Listen for it, and tell it when it is live."""
        ...

    def remove(self, channel: Chosen, /) -> None:
        """Listen for it no longer."""
        ...


class Subscriptions(Generic[Kind]):
    """One `Channel` for each name, however many listen to it."""

    def __init__(self, subscriber: Subscriber[Kind], timeout: float, make_channel: Callable[[bytes], Kind]) -> None:
        """``make_channel`` makes one of its name: what becomes of what comes may differ."""
        self._subscriber = subscriber
        self._timeout = timeout
        self._make_channel = make_channel
        self._channels: dict[bytes, Kind] = {}

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
            channel = self._channels[name] = self._make_channel(name)
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
