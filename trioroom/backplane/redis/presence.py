"""Who is in rooms on other nodes: a table in Redis for each room, whose changes are numbered and published.

A node writes what has changed of its own rows, at most once per interval, and hears what others change. When a number
is missing, or the link was down, it reads the whole table. Rows of a node whose lease has ended are removed by those
who see them: however many do, the others are told once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trioroom.backplane.base import PresenceListener, PresenceSeat
from trioroom.backplane.channel import Channel
from trioroom.backplane.leased_presence import LeasedPresence
from trioroom.backplane.redis.leases import RedisLeases
from trioroom.backplane.redis.seat import Seat, remove_rows
from trioroom.backplane.redis.settings import RedisSettings
from trioroom.backplane.redis.topology import Topology
from trioroom.backplane.subscriptions import Subscriptions


class RedisPresence(LeasedPresence[Seat]):
    """What `RedisBackplane.presence` is."""

    def __init__(self, topology: Topology, subscriptions: Subscriptions[Channel], settings: RedisSettings) -> None:
        self._topology = topology
        self._subscriptions = subscriptions
        self._prefix = settings.prefix
        super().__init__("redis", RedisLeases(topology, settings.prefix, settings.presence_lease))

    @asynccontextmanager
    async def open(self, room: str, listener: PresenceListener, interval: float) -> AsyncIterator[PresenceSeat]:
        """As `trioroom.backplane.base.PresenceStore.open`.

        Raises:
            BackplaneUnavailable: the broker cannot be reached.
            BackplaneError: it refuses.
        """
        await self._leases.hold()
        table = f"{self._prefix}:{{room:{room}}}:presence".encode()
        seat = Seat(self._topology, self._leases, table, next(self._numbers), listener, interval)
        async with self._subscriptions.open(table, seat, room), self._held(seat, table):
            yield seat

    async def _remove(self, table: bytes, seat: str) -> None:
        await remove_rows(self._topology, table, f"{seat}/")

    async def _keep_lease(self) -> None:
        seen: dict[Seat, set[str]] = {}

        def about_to_look() -> bool:
            seen.clear()
            seen.update((seat, set(seat.nodes)) for seat in self._seats)
            return bool(self._seats)

        async def looked() -> None:
            for seat in self._seats:
                seat.follow_node()  # all of them, before anything can fail
            for seat, nodes in seen.items():
                if seat in self._seats:
                    await seat.remove_dead(nodes)

        await self._leases.run(about_to_look, looked)
