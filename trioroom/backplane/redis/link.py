"""One server of the broker, supervised: a connection to publish on and one to listen on, and a probe."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from functools import partial

import trio
from redis.exceptions import ResponseError

from trioroom._core.backoff import Backoff
from trioroom._core.causes import first_of
from trioroom._core.meters import LinkMeters
from trioroom.backplane.channel import Channel
from trioroom.backplane.probe import Probe
from trioroom.backplane.redis.location import Endpoint, Location
from trioroom.backplane.redis.publisher import Publisher
from trioroom.backplane.redis.resp import LinkLost, RedisConnection, ask_incarnation, open_connection
from trioroom.backplane.redis.sources import Source
from trioroom.backplane.redis.subscriber import Subscriber, Words
from trioroom.errors import BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
_FIRST_BACKOFF = 0.05  # seconds; doubles with each failure up to RedisSettings.max_backoff
_SETTLED = 5.0  # seconds of life after which a loss is a new one and no sign that coming back is useless
_POSITION_BYTES = 64  # more than what a room with a history has before the payload


class Link:
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
        self.ready = False
        """Publications come round."""
        self.failure: str | None = None
        """Why it is down; None while it is up, or was never tried."""
        self._location = location
        self._source = source
        self._on_change = on_change
        self._meters = meters
        self._endpoint: Endpoint | None = None  # of the server, where that is known
        self._attempts = 0  # that have come to something, good or bad
        self._probe = Probe(settings.probe_interval, settings.probe_timeout, meters)
        channel = Channel(probe_channel)
        channel.add(self._probe)
        self.subscriber.add(channel)
        self._probe_channel = channel

    async def run(self) -> None:
        """Connect, and again whenever it is lost; only cancelling ends it."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.publisher.expire)
                await self._keep_alive()
        finally:  # nothing would expire any more
            closed = "the link to the broker is closed; publish while it is open"
            self.publisher.give_up(partial(BackplaneUnavailable, closed))

    async def _keep_alive(self) -> None:
        backoff = Backoff(first=_FIRST_BACKOFF, most=self._location.settings.max_backoff, settled=_SETTLED)
        while True:
            began = trio.current_time()
            try:
                await self._live()
            except* LinkLost as group:
                self._went_down(str(first_of(group)))
            finally:
                self.ready = False
            await trio.sleep(backoff.after(trio.current_time() - began, random.random()))

    def _went_down(self, reason: str) -> None:
        failure = f"{self._endpoint}: {reason}" if self._endpoint is not None else reason
        # Once for each reason; the very first failure is for who opens the backplane to tell.
        if failure != self.failure and self._attempts:
            log.warning("redis: %s; trying again", failure, extra={"endpoint": self._endpoint})
        self._attempts += 1
        self.failure = self.publisher.trouble = failure
        self._set_ready(False)
        self._on_change()

    def _set_ready(self, ready: bool) -> None:
        self._meters.outages += self.ready and not ready
        came_up, self.ready = ready and not self.ready, ready
        if came_up:
            fields = {"endpoint": self._endpoint, "rooms": len(self.subscriber.channels) - 1}
            log.info("redis: %s is up, %d rooms subscribed", *fields.values(), extra=fields)
            self.failure = self.publisher.trouble = None
            self._attempts += 1
            self._on_change()

    async def _live(self) -> None:
        """One life of the link; ends by raising `LinkLost`, perhaps in a group."""
        location, source = self._location, self._source
        self._endpoint = None
        endpoint = self._endpoint = await source.locate()
        open_one = (endpoint, location.login, location.tls, location.settings.connect_timeout)
        async with open_connection(*open_one) as publishing, open_connection(*open_one) as listening:
            with trio.move_on_after(location.settings.connect_timeout) as checking:
                await source.check(publishing)
                incarnation = await ask_incarnation(publishing)
            if checking.cancelled_caught:
                raise LinkLost("no answer to the first command")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(source.watch, endpoint)
                nursery.start_soon(self.subscriber.run, listening)
                await self._wait_restored(listening)
                if self._probe_channel.refusal is not None:
                    raise LinkLost(str(self._probe_channel.refusal))
                # Not before, so that we hear what has waited.
                await nursery.start(self.publisher.run, publishing, incarnation)
                late = await self._probe.keep_probing(
                    self._send_probe, self._set_ready, lambda: (publishing.received, listening.received)
                )
                raise LinkLost(f"a probe did not come round within {late:g} s")

    async def _wait_restored(self, listening: RedisConnection) -> None:
        """As long as it takes, while confirmations come."""
        timeout, received = self._location.settings.probe_timeout, -1
        while received != listening.received:
            received = listening.received
            with trio.move_on_after(timeout):
                return await self.subscriber.wait_restored()
        raise LinkLost(f"subscriptions were not confirmed for {timeout:g} s")

    async def _send_probe(self, number: bytes) -> None:
        try:
            await self.publisher.publish(self._probe_channel.name, number)
        except ResponseError as exc:
            raise LinkLost(f"the server refuses to publish: {exc}") from exc
        except BackplaneUnavailable:
            await trio.sleep_forever()  # the connection broke: who found that says why, and ends us
