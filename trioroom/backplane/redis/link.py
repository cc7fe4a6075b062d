"""One server of the broker, supervised: a connection to publish on and one to listen on, and a probe."""

from __future__ import annotations

from collections.abc import Callable

import trio
from redis.exceptions import ResponseError

from trioroom._core.meters import LinkMeters
from trioroom.backplane.channel import Channel
from trioroom.backplane.probe import Probe
from trioroom.backplane.redis.location import Location
from trioroom.backplane.redis.publisher import Publisher
from trioroom.backplane.redis.resp import ask_incarnation, check_loaded, open_connection
from trioroom.backplane.redis.sources import Source
from trioroom.backplane.redis.subscriber import Subscriber, Words
from trioroom.backplane.supervision import LinkLost, SupervisedLink
from trioroom.errors import BackplaneUnavailable

_POSITION_BYTES = 64  # more than what a room with a history has before the payload


class Link(SupervisedLink):
    """`run` keeps it up until cancelled. Publications and channels outlive what happens to the connections."""

    def __init__(
        self,
        location: Location,
        words: Words,
        source: Source,
        probe_channel: bytes,
        on_change: Callable[[], None],
        meters: LinkMeters,
    ) -> None:
        """``on_change`` is called when the link comes up, goes down, or has lost channels to another node."""
        settings = location.settings
        self.publisher = Publisher(
            words.publish, settings.timeout, settings.max_queued_publications, settings.max_queued_bytes, meters
        )
        self.subscriber = Subscriber(words, settings.max_publication_bytes + _POSITION_BYTES, on_change)
        super().__init__("redis", settings.max_backoff, self.publisher, meters, on_change)
        self._location = location
        self._source = source
        self._probe = Probe(settings.probe_interval, settings.probe_timeout, meters)
        channel = Channel(probe_channel)
        channel.add(self._probe)
        self.subscriber.add(channel)
        self._probe_channel = channel

    def _rooms(self) -> int:
        return len(self.subscriber.channels) - 1

    async def _live(self) -> None:
        """One life of the link; ends by raising `LinkLost`, perhaps in a group."""
        location, source = self._location, self._source
        self._endpoint = None
        endpoint = self._endpoint = await source.locate()
        open_one = (endpoint, location.login, location.tls, location.settings.connect_timeout)
        async with open_connection(*open_one) as publishing, open_connection(*open_one) as listening:
            with trio.move_on_after(location.settings.connect_timeout) as checking:
                await check_loaded(publishing)
                await source.check(publishing)
                incarnation = await ask_incarnation(publishing)
            if checking.cancelled_caught:
                raise LinkLost("no answer to the first command")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(source.watch, endpoint)
                nursery.start_soon(self.subscriber.run, listening)
                await self._wait_restored(
                    lambda: listening.received, self.subscriber.wait_restored, location.settings.probe_timeout
                )
                if self._probe_channel.refusal is not None:
                    raise LinkLost(str(self._probe_channel.refusal))
                # Not before, so that we hear what has waited.
                await nursery.start(self.publisher.run, publishing, incarnation)
                late = await self._probe.keep_probing(
                    self._send_probe, self._set_ready, lambda: (publishing.received, listening.received)
                )
                raise LinkLost(f"a probe did not come round within {late:g} s")

    async def _send_probe(self, number: bytes) -> None:
        try:
            await self.publisher.publish(self._probe_channel.name, number)
        except ResponseError as exc:
            raise LinkLost(f"the server refuses to publish: {exc}") from exc
        except BackplaneUnavailable:
            await trio.sleep_forever()  # the connection broke: who found that says why, and ends us
