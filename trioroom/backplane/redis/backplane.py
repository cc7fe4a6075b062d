"""`open_redis` and the backplane it opens."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from redis.exceptions import ResponseError

from trioroom.backplane.background import run_in_background
from trioroom.backplane.base import HistoryStore, PresenceStore
from trioroom.backplane.redis.channel import Channel
from trioroom.backplane.redis.cluster import Cluster
from trioroom.backplane.redis.location import Location, Mode, parse_location
from trioroom.backplane.redis.settings import RedisSettings
from trioroom.backplane.redis.topology import SingleServer, Topology
from trioroom.backplane.room_channel import RoomChannel
from trioroom.errors import BackplaneError, BackplaneUnavailable


class RedisBackplane:
    """A channel for each room, on all nodes; get it from `open_redis`."""

    def __init__(self, topology: Topology, settings: RedisSettings) -> None:
        self._topology = topology
        self._settings = settings
        self._prefix = f"{settings.prefix}:room:".encode()
        self._channels: dict[bytes, Channel] = {}

    @property
    def history(self) -> HistoryStore | None:
        """None yet."""
        return None

    @property
    def presence(self) -> PresenceStore | None:
        """None yet."""
        return None

    @property
    def ready(self) -> bool:
        """Whether what we publish comes round to us, as of the last probe."""
        return self._topology.ready

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        """PUBLISH, or SPUBLISH on a cluster; returns when the broker has it.

        Calls may overlap, and then share a round trip. Cancelled, the publication may or may not have gone out.

        Raises:
            ValueError: more than ``max_publication_bytes``.
            BackplaneUnavailable: no answer within ``timeout``, or the link broke: it may have gone out or not.
            BackplaneError: the broker refused it.
        """
        if len(payload) > self._settings.max_publication_bytes:
            raise ValueError(
                f"publication of {len(payload)} bytes exceeds max_publication_bytes="
                f"{self._settings.max_publication_bytes}; raise the limit on all nodes or publish in parts"
            )
        try:
            await self._topology.publish(self._prefix + room.encode(), payload)
        except ResponseError as exc:
            raise BackplaneError(f"the broker refused a publication to room {room!r}: {exc}") from exc

    @asynccontextmanager
    async def subscribe(self, room: str, channel: RoomChannel) -> AsyncIterator[None]:
        """SUBSCRIBE, or SSUBSCRIBE; entered when the broker has confirmed it.

        Raises:
            BackplaneUnavailable: no confirmation within ``timeout``.
            BackplaneError: the broker refused it.
        """
        name = self._prefix + room.encode()
        source = self._channels.get(name)
        if source is None:
            source = self._channels[name] = Channel(name)
            source.add(channel)
            self._topology.add(source)
        else:
            source.add(channel)
        try:
            with trio.move_on_after(self._settings.timeout) as scope:
                await source.wait_live()
            if scope.cancelled_caught:
                raise BackplaneUnavailable(
                    f"the broker has not confirmed the subscription of room {room!r} within "
                    f"timeout={self._settings.timeout:g} s; retry later"
                )
            yield
        finally:
            source.remove(channel)
            if not source:
                del self._channels[name]
                self._topology.remove(source)


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
        yield RedisBackplane(topology, location.settings)


def _topology(location: Location) -> Topology:
    probe = f"{location.settings.prefix}:probe:{secrets.token_hex(8)}".encode()
    return Cluster(location, probe) if location.mode is Mode.CLUSTER else SingleServer(location, probe)
