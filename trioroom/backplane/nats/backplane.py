"""`open_nats` and the backplane it opens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final

import trio

from trioroom._core.meters import LinkMeters
from trioroom.backplane.background import run_in_background
from trioroom.backplane.nats.history import NatsHistory
from trioroom.backplane.nats.link import Link
from trioroom.backplane.nats.location import parse_location
from trioroom.backplane.nats.presence import NatsPresence
from trioroom.backplane.nats.relay import Relay, RelayedRoom, StreamLeaders
from trioroom.backplane.nats.settings import NatsSettings
from trioroom.backplane.nats.streams import append
from trioroom.backplane.nats.subjects import Names, token_of
from trioroom.backplane.room_channel import RoomChannel
from trioroom.backplane.subscriptions import Subscriptions
from trioroom.errors import BackplaneUnavailable

# Seconds. When a server of a cluster dies the others wait for 4 to 9 before they choose who leads them, and as long
# again for a new stream that the dead one was to lead; 16 have been seen.
_ELECTION: Final = 30.0


class NatsBackplane:
    """A subject for each room, on all nodes; get it from `open_nats`."""

    def __init__(self, link: Link, settings: NatsSettings) -> None:
        self._link = link
        self._settings = settings
        self._names = Names(settings.prefix)
        self._rooms = Subscriptions(link, settings.timeout, RelayedRoom)
        self._history = NatsHistory(link, settings)
        self._presence = NatsPresence(link, settings)

    @property
    def history(self) -> NatsHistory:
        """Publications of rooms that keep them, spread over a few streams."""
        return self._history

    @property
    def presence(self) -> NatsPresence:
        """In a bucket, with a key for each row and a lease for each node."""
        return self._presence

    @property
    def meters(self) -> LinkMeters:
        """Outages, delays and group sizes so far."""
        return self._link.meters

    @property
    def ready(self) -> bool:
        """Whether what we publish comes round to us, as of the last probe."""
        return self._link.ready

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        """To the relay, a stream that numbers publications and passes them on; returns when it has it.

        Calls may overlap, and then share a round trip. Cancelled, the publication may or may not have gone out.

        Raises:
            ValueError: more than ``max_publication_bytes``.
            BackplaneUnavailable: no answer within ``timeout``, or the link broke: it may have gone out or not.
            BackplaneError: the broker refused it: it is more than the server's ``max_payload``, or not permitted.
        """
        self._settings.check_payload(payload)
        token = token_of(room)
        headers = None if publication_id is None else {"Nats-Msg-Id": f"{token}:{token_of(publication_id)}"}
        await append(self._link.requests, f"{self._names.put}room.{token}", payload, headers)

    def subscribe(self, room: str, channel: RoomChannel) -> AbstractAsyncContextManager[None]:
        """Entered when the server that numbers publications knows of it.

        Raises:
            BackplaneUnavailable: no confirmation within ``timeout``.
            BackplaneError: the broker refused it.
        """
        return self._rooms.open(f"{self._names.got}room.{token_of(room)}".encode(), channel, room)


@asynccontextmanager
async def open_nats(url: str, *, settings: NatsSettings | None = None) -> AsyncIterator[NatsBackplane]:
    """A backplane through the servers that ``url`` names, supervised while the context is open.

    ``nats://[user:password@]host[:4222],host2`` or ``nats://token@host``: some servers of a cluster, or the only one;
    ``nats+tls://`` with TLS. They run with JetStream. Each field of `NatsSettings` can stand in the query and goes
    before ``settings``; ``nkey_file`` and ``credentials_file`` name a file with a key to log in with (extra ``nats``).

    A cluster that takes us and has nobody who leads, or too few servers for ``replicas``, is waited for, some 30
    seconds at most.

    Raises:
        ValueError: the URL is none of these.
        BackplaneUnavailable: no server can be reached, or they refuse us, now. Later they are waited for.
        BackplaneError: the extra that a key needs is missing.
    """
    location = parse_location(url, settings)
    link = Link(location)
    link.on_connection(Relay(location.settings).ensure)
    names = Names(location.settings.prefix)
    lose = partial(link.lose, lambda channel: isinstance(channel, RelayedRoom))
    link.add(StreamLeaders(names.leaders_of(names.relay).encode(), lose=lose))
    backplane = NatsBackplane(link, location.settings)
    async with run_in_background(link.run):
        await _wait_ready(link)
        async with run_in_background(backplane.presence.run):
            yield backplane


async def _wait_ready(link: Link) -> None:
    patience = trio.current_time() + _ELECTION
    while not link.ready:
        if link.failure is not None and (not link.leaderless or trio.current_time() > patience):
            raise BackplaneUnavailable(f"cannot use the NATS backplane: {link.failure}")
        await link.wait_changed()
