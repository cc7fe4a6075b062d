"""A cluster: each channel lives in a slot, each slot at one of the masters, and both may move.

Sharded Pub/Sub (https://redis.io/docs/latest/develop/pubsub/#sharded-pubsub): what is published stays within
the shard that has the channel's slot, so traffic grows with the cluster instead of reaching every node of it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count

import attrs
import trio
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ResponseError

from trioroom._core.meters import LinkMeters
from trioroom.backplane.channel import Channel
from trioroom.backplane.redis.link import Link
from trioroom.backplane.redis.location import Endpoint, Location
from trioroom.backplane.redis.publisher import Command, Publisher
from trioroom.backplane.redis.resp import RedisConnection, Reply, open_connection, reading_reply
from trioroom.backplane.redis.sources import FixedSource
from trioroom.backplane.redis.subscriber import SHARDED, is_moved
from trioroom.backplane.supervision import Changes, LinkLost
from trioroom.errors import BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
_LOOK_INTERVAL = 5.0  # seconds between two looks at a map with which nothing seems wrong
_UNSETTLED_INTERVAL = 0.2  # and while something does
_MOVED = object()

Owners = dict[int, Endpoint]
"""Slot -> the master that has it."""


@attrs.define(eq=False)
class _Shard:
    """The link to one master."""

    link: Link
    probe_slot: int
    scope: trio.CancelScope


class Cluster:
    """One link for each master that has slots; channels follow their slots."""

    words = SHARDED

    def __init__(self, location: Location, probe_channel: bytes) -> None:
        self.failure: str | None = None
        """Why it cannot be used now, where that is known."""
        self._map_failure: str | None = None  # why the last look at the map came to nothing
        self.meters = LinkMeters()
        self._location = location
        self._probe_channel = probe_channel
        self._owners: Owners = {}
        self._shards: dict[Endpoint, _Shard] = {}
        self._placed: dict[Channel, Link | None] = {}  # where each wanted channel is subscribed
        self._look = trio.Event()  # the map may be wrong
        self._changes = Changes()
        self.wait_changed = self._changes.wait

    @property
    def ready(self) -> bool:
        """Every slot has a master, every master's link is up, and no channel is between two of them."""
        return len(self._owners) == REDIS_CLUSTER_HASH_SLOTS and all(
            shard.link.ready and not shard.link.subscriber.adrift for shard in self._shards.values()
        )

    # -- publications and subscriptions ----------------------------------------------------------

    async def publish(self, channel: bytes, payload: bytes) -> None:
        """To the master that has the channel's slot; once more when it has moved."""
        await self._reach(key_slot(channel), lambda publisher: publisher.publish(channel, payload))

    async def call(self, key: bytes, command: Command) -> Reply:
        """The same with a command on ``key``."""
        return await self._reach(key_slot(key), lambda publisher: publisher.call(command))

    async def _reach(self, slot: int, ask: Callable[[Publisher], Awaitable[Reply]]) -> Reply:
        reply = await self._try(slot, ask)
        if reply is not _MOVED:
            return reply
        timeout = self._location.settings.timeout
        with trio.move_on_after(timeout):
            while True:
                self._look.set()
                await self._changes.wait()
                reply = await self._try(slot, ask)
                if reply is not _MOVED:
                    return reply
        raise BackplaneUnavailable(
            f"no node of the cluster took a publication within timeout={timeout:g} s; retry later"
        )

    async def _try(self, slot: int, ask: Callable[[Publisher], Awaitable[Reply]]) -> Reply:
        """`_MOVED` when the slot is not where the map says; not always a checkpoint then."""
        link = self._link_of(slot)
        if link is None:
            return _MOVED
        try:
            return await ask(link.publisher)
        except ResponseError as exc:
            if not is_moved(exc):
                raise
            return _MOVED

    def add(self, channel: Channel) -> None:
        """Subscribe at the master that has its slot, now or when there is one."""
        self._place(channel, self._link_of(key_slot(channel.name)))

    def remove(self, channel: Channel) -> None:
        """Unsubscribe."""
        link = self._placed.pop(channel)
        if link is not None:
            link.subscriber.remove(channel)

    def _place(self, channel: Channel, link: Link | None) -> None:
        self._placed[channel] = link
        if link is not None:
            link.subscriber.add(channel)

    def _link_of(self, slot: int) -> Link | None:
        shard = self._shards.get(self._owners[slot]) if slot in self._owners else None
        return None if shard is None else shard.link

    # -- the map ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look at the map from time to time, and at once when a link says that it is wrong."""
        async with trio.open_nursery() as nursery:
            while True:
                self._look = trio.Event()
                try:
                    owners = await self._ask()
                except LinkLost as exc:
                    self._failed(str(exc))
                else:
                    self._map_failure = None
                    self._follow(owners, nursery)
                    self.failure = self._trouble()
                self._changes.tell()
                with trio.move_on_after(_LOOK_INTERVAL):
                    await self._look.wait()
                await trio.sleep(_UNSETTLED_INTERVAL)  # many links may say so in the same moment

    def _failed(self, reason: str) -> None:
        if reason != self._map_failure:  # not `failure`, which is that of a link in between
            log.warning("redis cluster: %s; keeping the map there is", reason)
        self.failure = self._map_failure = reason

    def _on_change(self) -> None:
        self.failure = self._trouble()
        if not self.ready:
            self._look.set()
        self._changes.tell()

    def _trouble(self) -> str | None:
        if missing := REDIS_CLUSTER_HASH_SLOTS - len(self._owners):  # as without cluster-require-full-coverage
            return f"{missing} of {REDIS_CLUSTER_HASH_SLOTS} slots have no master"
        return next((shard.link.failure for shard in self._shards.values() if shard.link.failure), None)

    async def _ask(self) -> Owners:
        """The map as the first node that is in good standing tells it."""
        location, failures = self._location, list[str]()
        timeout = location.settings.connect_timeout
        known = sorted(self._shards, key=lambda endpoint: not self._shards[endpoint].link.ready)
        for endpoint in dict.fromkeys([*known, *location.endpoints]):
            opening = open_connection(endpoint, location.login, location.tls, timeout)
            try:
                with trio.move_on_after(timeout) as scope:
                    async with opening as connection:
                        return await _read_map(connection)
                assert scope.cancelled_caught
                failures.append(f"{endpoint}: no answer within {timeout:g} s")
            except LinkLost as exc:
                failures.append(f"{endpoint}: {exc}")
        raise LinkLost(f"no node knows the slots ({'; '.join(failures)})")

    def _follow(self, owners: Owners, nursery: trio.Nursery) -> None:
        """Open links to new masters, close those to old ones, and let the channels follow their slots."""
        adrift = any(shard.link.subscriber.adrift for shard in self._shards.values())
        if owners == self._owners and not adrift:
            return
        self._owners = owners
        for endpoint, shard in list(self._shards.items()):
            if owners.get(shard.probe_slot) != endpoint:  # also when it has lost only that: then it begins anew
                del self._shards[endpoint]
                shard.scope.cancel()
                shard.link.publisher.give_up(partial(ResponseError, "MOVED"))
        for endpoint in dict.fromkeys(owners.values()):
            if endpoint not in self._shards:
                self._shards[endpoint] = self._open_shard(endpoint, nursery)
        for channel, link in list(self._placed.items()):
            owner = self._link_of(key_slot(channel.name))
            if owner is not link:
                if link is not None:
                    link.subscriber.remove(channel)
                self._place(channel, owner)
            elif owner is not None and channel in owner.subscriber.adrift:
                owner.subscriber.add(channel)

    def _open_shard(self, endpoint: Endpoint, nursery: trio.Nursery) -> _Shard:
        name, slot = self._find_probe(endpoint)
        link = Link(self._location, SHARDED, FixedSource(endpoint), name, self._on_change, self.meters)
        shard = _Shard(link, slot, trio.CancelScope())

        async def run() -> None:
            with shard.scope:
                await link.run()

        nursery.start_soon(run, name=f"redis link to {endpoint}")
        return shard

    def _find_probe(self, endpoint: Endpoint) -> tuple[bytes, int]:
        """A probe channel that lives there, and its slot."""
        for number in count():
            name = b"%s:%d" % (self._probe_channel, number)
            if self._owners.get(slot := key_slot(name)) == endpoint:
                return name, slot
        raise AssertionError("unreachable: numbers do not end")


async def _read_map(connection: RedisConnection) -> Owners:
    """Ask a node for its map, if the others have not left it behind.

    CLUSTER SLOTS: https://redis.io/docs/latest/commands/cluster-slots/.
    """
    info = await connection.call("CLUSTER", "INFO")
    with reading_reply("CLUSTER INFO"):
        if b"cluster_state:ok" not in info:
            raise LinkLost("it says that the cluster is down")
    owners: Owners = {}
    slots = await connection.call("CLUSTER", "SLOTS")
    with reading_reply("CLUSTER SLOTS"):
        for first, last, (host, port, *_), *_ in slots:
            known = host not in (None, b"", b"?")  # else it is the one that answers
            endpoint = Endpoint(host.decode() if known else connection.endpoint.host, int(port))
            owners.update(dict.fromkeys(range(first, last + 1), endpoint))
    return owners
