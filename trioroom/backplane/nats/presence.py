"""Who is in rooms on other nodes: a key for each row in a bucket of JetStream, which tells of each change.

A node puts what has changed of its own rows, at most once per interval, and hears what others change. When something is
missing, or the link was down, it reads all rows of the room. A node whose lease has ended is found dead by one of the
others, which removes its rows in all rooms; the rest see that its lease is gone, and tell so once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import trio

from trioroom.backplane.background import run_in_background
from trioroom.backplane.base import PresenceListener, PresenceSeat
from trioroom.backplane.nats.bucket import Bucket
from trioroom.backplane.nats.link import Link
from trioroom.backplane.nats.presence_leases import NatsLeases
from trioroom.backplane.nats.presence_seat import Seat, ToldRoom, remove_rows
from trioroom.backplane.nats.presence_table import keys_of_room
from trioroom.backplane.nats.settings import NatsSettings
from trioroom.backplane.nats.subjects import token_of
from trioroom.backplane.removals import Removals
from trioroom.backplane.subscriptions import Subscriptions


class NatsPresence:
    """What `NatsBackplane.presence` is. `run` keeps this node's lease while there are seats."""

    def __init__(self, link: Link, settings: NatsSettings) -> None:
        self._bucket = Bucket(link.requests, settings)
        self._timeout = settings.timeout
        self._subscriptions = Subscriptions(link, settings.timeout, ToldRoom)
        self._leases = NatsLeases(self._bucket, settings.presence_lease)
        self._removals = Removals("nats", self._remove, self._leases.give_up_id)
        self._seats: dict[Seat, None] = {}
        self._numbers = count(1)

    @asynccontextmanager
    async def open(self, room: str, listener: PresenceListener, interval: float) -> AsyncIterator[PresenceSeat]:
        """As `trioroom.backplane.base.PresenceStore.open`.

        Raises:
            BackplaneUnavailable: the broker cannot be reached.
            BackplaneError: it refuses.
        """
        await self._leases.hold()
        token = token_of(room)
        seat = Seat(self._bucket, self._leases, token, next(self._numbers), listener, interval, self._timeout)
        async with self._subscriptions.open(f"{self._bucket.told}{keys_of_room(token)}".encode(), seat, room):
            await seat.read()
            self._seats[seat] = None
            self._leases.look_soon()  # from now on it is kept
            try:
                async with run_in_background(seat.run):
                    yield seat
            finally:
                del self._seats[seat]
                await self._removals.close(token.encode(), seat.own.names)

    async def _remove(self, table: bytes, seat: str) -> None:
        await remove_rows(self._bucket, table.decode(), seat)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._removals.run)
            nursery.start_soon(self._keep_lease)

    async def _keep_lease(self) -> None:
        seen: dict[Seat, set[str]] = {}
        known: set[str] = set()  # whoever dies of them is buried by who finds it dead

        def about_to_look() -> bool:
            seen.clear()
            seen.update((seat, set(seat.nodes)) for seat in self._seats)
            known.clear()
            known.update(self._leases.live)
            return bool(self._seats)

        async def looked() -> None:
            live = self._leases.live.keys()
            for seat in self._seats:
                seat.follow_node()
            for seat, nodes in seen.items():
                seat.forget_nodes(nodes - live)
            for seat, nodes in seen.items():
                if seat in self._seats:
                    await seat.remove_nodes(nodes - live - known)
            await self._leases.bury()

        await self._leases.run(about_to_look, looked)
