"""`open_redis` and the backplane it opens."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from redis.exceptions import ResponseError

from trioroom._core.meters import LinkMeters
from trioroom.backplane.background import run_in_background
from trioroom.backplane.channel import Channel
from trioroom.backplane.redis.cluster import Cluster
from trioroom.backplane.redis.history import RedisHistory, milliseconds
from trioroom.backplane.redis.history_scripts import PUBLISH_ONCE
from trioroom.backplane.redis.location import Location, Mode, parse_location
from trioroom.backplane.redis.presence import RedisPresence
from trioroom.backplane.redis.settings import RedisSettings
from trioroom.backplane.redis.topology import SingleServer, Topology
from trioroom.backplane.room_channel import RoomChannel
from trioroom.backplane.subscriptions import Subscriptions
from trioroom.errors import BackplaneError, BackplaneUnavailable


class RedisBackplane:
    """A channel for each room, on all nodes; get it from `open_redis`."""

    def __init__(self, topology: Topology, settings: RedisSettings) -> None:
        self._topology = topology
        self._settings = settings
        self._prefix = f"{settings.prefix}:room:".encode()
        self._subscriptions = Subscriptions(topology, settings.timeout, Channel)
        self._history = RedisHistory(topology, self._subscriptions, settings)
        self._presence = RedisPresence(topology, self._subscriptions, settings)

    @property
    def history(self) -> RedisHistory:
        """In streams, as far as the server keeps what it has."""
        return self._history

    @property
    def presence(self) -> RedisPresence:
        """In hashes, one for each room, with a lease for each node."""
        return self._presence

    @property
    def meters(self) -> LinkMeters:
        """Outages, delays and group sizes so far."""
        return self._topology.meters

    @property
    def ready(self) -> bool:
        """Whether what we publish comes round to us, as of the last probe."""
        return self._topology.ready

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        """PUBLISH, or SPUBLISH on a cluster, by a script if there is an id; returns when the broker has it.

        Calls may overlap, and then share a round trip. Cancelled, the publication may or may not have gone out.

        Raises:
            ValueError: more than ``max_publication_bytes``.
            BackplaneUnavailable: no answer within ``timeout``, or the link broke: it may have gone out or not.
            BackplaneError: the broker refused it.
        """
        self._settings.check_payload(payload)
        name = self._prefix + room.encode()
        try:
            if publication_id is None:
                await self._topology.publish(name, payload)
            else:
                remember = milliseconds(self._settings.publication_id_ttl)
                words = self._topology.words
                await PUBLISH_ONCE.run(
                    self._topology, [name], lambda _: [publication_id, remember, words.publish, payload]
                )
        except ResponseError as exc:
            raise BackplaneError(f"the broker refused a publication to room {room!r}: {exc}") from exc

    def subscribe(self, room: str, channel: RoomChannel) -> AbstractAsyncContextManager[None]:
        """SUBSCRIBE, or SSUBSCRIBE; entered when the broker has confirmed it.

        Raises:
            BackplaneUnavailable: no confirmation within ``timeout``.
            BackplaneError: the broker refused it.
        """
        return self._subscriptions.open(self._prefix + room.encode(), channel, room)


@asynccontextmanager
async def open_redis(url: str, *, settings: RedisSettings | None = None) -> AsyncIterator[RedisBackplane]:
    """A backplane through the server, sentinels or cluster that ``url`` names, supervised while the context is open.

    - ``redis://[user:password@]host[:6379][/db]``: a server, or a name that leads to one; ``rediss://`` with TLS.
    - ``unix:///path/to.sock[?db=0]``: a server on this machine.
    - ``redis+sentinel://host[:26379],host/mymaster[/db]``: the server that sentinels call so.
    - ``redis+cluster://host[:6379],host``: a cluster (Redis 7 or newer), by some of its nodes; sharded Pub/Sub.

    Each field of `RedisSettings` can stand in the query and goes before ``settings``.

    Raises:
        ValueError: the URL is none of these.
        BackplaneUnavailable: the broker cannot be reached or refuses us now. Later it is waited for.
    """
    location = parse_location(url, settings)
    topology = _topology(location)
    async with run_in_background(topology.run):
        while not topology.ready:
            if topology.failure is not None:
                raise BackplaneUnavailable(f"cannot use the Redis backplane: {topology.failure}")
            await topology.wait_changed()
        backplane = RedisBackplane(topology, location.settings)
        async with run_in_background(backplane.presence.run):
            yield backplane


def _topology(location: Location) -> Topology:
    probe = f"{location.settings.prefix}:probe:{secrets.token_hex(8)}".encode()
    return Cluster(location, probe) if location.mode is Mode.CLUSTER else SingleServer(location, probe)
