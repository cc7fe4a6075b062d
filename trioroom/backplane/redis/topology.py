"""Which link a channel goes through: what a single server and a cluster have in common."""

from __future__ import annotations

from typing import Protocol

from trioroom._core.meters import LinkMeters
from trioroom.backplane.channel import Channel
from trioroom.backplane.redis.link import Link
from trioroom.backplane.redis.location import Location, Mode
from trioroom.backplane.redis.publisher import Command
from trioroom.backplane.redis.resp import Reply
from trioroom.backplane.redis.sources import FixedSource, SentinelSource
from trioroom.backplane.redis.subscriber import CLASSIC, Words
from trioroom.backplane.supervision import Changes


class Topology(Protocol):
    """The servers of one broker."""

    words: Words
    """The Pub/Sub it speaks."""
    meters: LinkMeters
    """Of all its links together."""

    @property
    def failure(self) -> str | None:
        """Why it cannot be used now, where that is known."""
        ...

    @property
    def ready(self) -> bool:
        """Whether publications to any room come round."""
        ...

    async def run(self) -> None:
        """Keep all links up until cancelled."""
        ...

    async def wait_changed(self) -> None:
        """Until `ready` or `failure` may have changed."""
        ...

    async def publish(self, channel: bytes, payload: bytes) -> None:
        """As `trioroom.backplane.redis.publisher.Publisher.publish`, wherever the channel is now."""
        ...

    async def call(self, key: bytes, command: Command) -> Reply:
        """As `trioroom.backplane.redis.publisher.Publisher.call`, wherever ``key`` is now."""
        ...

    def add(self, channel: Channel) -> None:
        """Subscribe."""
        ...

    def remove(self, channel: Channel) -> None:
        """Unsubscribe."""
        ...


class SingleServer:
    """One server has all channels, wherever it is at the moment."""

    words = CLASSIC

    def __init__(self, location: Location, probe_channel: bytes) -> None:
        source = SentinelSource(location) if location.mode is Mode.SENTINEL else FixedSource(location.endpoints[0])
        self._changes = Changes()
        self.meters = LinkMeters()
        self._link = Link(location, CLASSIC, source, probe_channel, self._changes.tell, self.meters)
        self.add = self._link.subscriber.add
        self.remove = self._link.subscriber.remove
        self.publish = self._link.publisher.publish
        self.run = self._link.run
        self.wait_changed = self._changes.wait

    async def call(self, key: bytes, command: Command) -> Reply:
        """All keys are there."""
        return await self._link.publisher.call(command)

    @property
    def ready(self) -> bool:
        """The link is up."""
        return self._link.ready

    @property
    def failure(self) -> str | None:
        """Why the link is down."""
        return self._link.failure
