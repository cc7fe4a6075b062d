"""Which channels of the broker this node listens to, and for whom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from trioroom.backplane.redis.channel import Channel, Listener
from trioroom.backplane.redis.topology import Topology
from trioroom.errors import BackplaneUnavailable


class Subscriptions:
    """One `Channel` for each name, however many listen to it."""

    def __init__(self, topology: Topology, timeout: float) -> None:
        self._topology = topology
        self._timeout = timeout
        self._channels: dict[bytes, Channel] = {}

    def __len__(self) -> int:
        return len(self._channels)

    @asynccontextmanager
    async def open(self, name: bytes, listener: Listener, room: str) -> AsyncIterator[None]:
        """SUBSCRIBE, or SSUBSCRIBE; entered when the broker has confirmed it. ``room`` is for the message.

        Raises:
            BackplaneUnavailable: no confirmation within ``timeout``.
            BackplaneError: the broker refused it.
        """
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name)
            channel.add(listener)
            self._topology.add(channel)
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
                self._topology.remove(channel)
