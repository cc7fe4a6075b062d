"""Who is in rooms on other nodes: a key for each row in a bucket of JetStream, which tells of each change.

A node puts what has changed of its own rows, at most once per interval, and hears what others change. When something is
missing, or the link was down, it reads all rows of the room. A node whose lease has ended is found dead by one of the
others, which removes its rows in all rooms; the rest see that its lease is gone, and tell so once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from trioroom.backplane.base import PresenceListener, PresenceSeat
from trioroom.backplane.leased_presence import LeasedPresence
from trioroom.backplane.nats.bucket import Bucket
from trioroom.backplane.nats.link import Link
from trioroom.backplane.nats.presence_leases import NatsLeases
from trioroom.backplane.nats.presence_seat import Seat, ToldRoom, remove_rows
from trioroom.backplane.nats.presence_table import keys_of_room
from trioroom.backplane.nats.relay import StreamLeaders
from trioroom.backplane.nats.settings import NatsSettings
from trioroom.backplane.nats.subjects import Names, token_of
from trioroom.backplane.subscriptions import Subscriptions


class NatsPresence(LeasedPresence[Seat]):
    """What `NatsBackplane.presence` is."""

    _leases: NatsLeases

    def __init__(self, link: Link, settings: NatsSettings) -> None:
        self._bucket = Bucket(link.requests, settings)
        # What the leader before has taken and not told of, nobody does.
        lose = partial(link.lose, lambda channel: isinstance(channel, ToldRoom))
        link.add(StreamLeaders(Names.leaders_of(self._bucket.stream).encode(), lose=lose))
        self._timeout = settings.timeout
        self._subscriptions = Subscriptions(link, settings.timeout, ToldRoom)
        super().__init__("nats", NatsLeases(self._bucket, settings.presence_lease))

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
        told = f"{self._bucket.told}{keys_of_room(token)}".encode()
        async with self._subscriptions.open(told, seat, room), self._held(seat, token.encode()):
            yield seat

    async def _remove(self, table: bytes, seat: str) -> None:
        await remove_rows(self._bucket, table.decode(), seat)

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
