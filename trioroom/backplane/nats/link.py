"""One connection to one of the servers, supervised, and a probe.

The probe is a publication to a subject of our own, by the way that rooms' publications go. It has to come round within
its time, or the link is given up: a connection that is open and silent may have lost its other end or a proxy's state,
and nothing else would ever tell.
"""

from __future__ import annotations

import logging
import random
import re
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias

import trio

from trioroom._core.backoff import Backoff
from trioroom._core.causes import first_of
from trioroom._core.meters import LinkMeters
from trioroom.backplane.base import Delivery
from trioroom.backplane.nats.channel import NatsChannel
from trioroom.backplane.nats.connection import NatsConnection, ServerInfo, open_connection
from trioroom.backplane.nats.location import Endpoint, Location
from trioroom.backplane.nats.protocol import Control, LinkLost, Message
from trioroom.backplane.nats.requests import Requests, link_closed
from trioroom.backplane.nats.servers import Servers
from trioroom.backplane.nats.streams import parse_answer
from trioroom.backplane.nats.subjects import Names
from trioroom.backplane.nats.subscriber import Subscriber
from trioroom.errors import BackplaneError, BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
_FIRST_BACKOFF: Final = 0.05  # seconds; doubles with each failure up to NatsSettings.max_backoff
_SETTLED: Final = 5.0  # seconds of life after which a loss is a new one and no sign that coming back is useless
_MAX_DIGITS: Final = 15  # of a probe's number; anybody may publish to its channel
_HEADROOM: Final = 64  # bytes; more than what is in a payload beside a publication
_MAX_LAG: Final = 10  # times probe_timeout that a probe may take while other traffic shows that the link lives
_INBOX_SID: Final = 1
_OWN_INBOX_SID: Final = 2
_MAX_OWN: Final = 256  # requests of the link's own and of hooks; they ask a few things at a time
_VIOLATION: Final = re.compile(r"Permissions Violation for (Publish|Subscription) to \"([^\"]*)\"")

Hook: TypeAlias = Callable[[Requests], Awaitable[None]]
"""Runs on each new connection before any channel is live or what waits is sent. It asks by what it is given, which goes
at once. What it raises, `BackplaneError` of any kind, gives the connection up, and the next one tries again."""


class _Probe:
    """Hears our publications to ourselves."""

    def __init__(self) -> None:
        self.sent = 0  # the number of the last one; not used again on the next connection, where it would prove nothing
        self.returned = 0
        self._news = trio.Event()

    def offer(self, delivery: Delivery) -> None:
        """Called by the listener."""
        if isinstance(delivery, bytes) and delivery.isdigit() and len(delivery) <= _MAX_DIGITS:
            self.returned = int(delivery)
            self._news.set()
            self._news = trio.Event()

    async def wait(self, number: int) -> None:
        """Until the publication of this number has come round."""
        while self.returned < number:
            await self._news.wait()


class Link:
    """`run` keeps it up until cancelled. Requests and channels outlive what happens to the connections."""

    def __init__(self, location: Location) -> None:
        settings = location.settings
        self.meters = LinkMeters()
        """What it has counted."""
        self.requests = Requests(
            _INBOX_SID, settings.timeout, settings.max_queued_publications, settings.max_queued_bytes, self.meters
        )
        self.ready = False
        """Publications come round."""
        self.failure: str | None = None
        """Why it is down; None while it is up, or was never tried."""
        self.server = ServerInfo()
        """What the server says of itself that we are connected to, or were last."""
        self._location = location
        self._servers = Servers(location.endpoints)
        self._hooks: list[Hook] = []
        # Beside the queue of the others, which waits until rooms are live.
        self._own = Requests(_OWN_INBOX_SID, settings.timeout, _MAX_OWN, settings.max_queued_bytes)
        self._subscriber = Subscriber(settings.max_publication_bytes + _HEADROOM)
        self._changed = trio.Event()
        self._endpoint: Endpoint | None = None  # the latest that was tried
        self._attempts = 0  # that have come to something, good or bad
        self._probe = _Probe()
        names, probe = Names(settings.prefix), f"probe.{secrets.token_hex(8)}"
        self._probe_subject = names.put + probe
        self._probe_channel = NatsChannel(f"{names.got}{probe}".encode())
        self._probe_channel.add(self._probe)
        self.add(self._probe_channel)

    # -- for who uses it ---------------------------------------------------------------------------

    def on_connection(self, hook: Hook) -> None:
        """Have ``hook`` run on each new connection; those that came first run first."""
        self._hooks.append(hook)

    def add(self, channel: NatsChannel) -> None:
        """Listen to the subject that is its name, and tell it when it is live."""
        self._subscriber.add(channel)

    def remove(self, channel: NatsChannel) -> None:
        """Listen to it no longer."""
        self._subscriber.remove(channel)

    async def wait_changed(self) -> None:
        """Until it has come up or gone down."""
        await self._changed.wait()

    # -- its life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect, and again whenever it is lost; only cancelling ends it."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.requests.expire)
                nursery.start_soon(self._own.expire)
                await self._keep_alive()
        finally:  # nothing would expire any more
            self.requests.give_up(link_closed)
            self._own.give_up(link_closed)

    async def _keep_alive(self) -> None:
        backoff = Backoff(first=_FIRST_BACKOFF, most=self._location.settings.max_backoff, settled=_SETTLED)
        while True:
            began = trio.current_time()
            try:
                await self._live()
            except* BackplaneError as group:
                self._went_down(str(first_of(group)))
            finally:
                self.ready = False
            await trio.sleep(backoff.after(trio.current_time() - began, random.random()))

    def _went_down(self, reason: str) -> None:
        failure = f"{self._endpoint}: {reason}"
        # Once for each reason; the very first failure is for who opens the backplane to tell.
        if failure != self.failure and self._attempts:
            log.warning("nats: %s; trying again", failure, extra={"endpoint": self._endpoint})
        self._attempts += 1
        self.failure = self.requests.trouble = failure
        self._stop_being_ready()
        self._tell_change()

    def _stop_being_ready(self) -> None:
        self.meters.outages += self.ready
        self.ready = False

    def _came_up(self) -> None:
        fields = {"endpoint": self._endpoint, "rooms": len(self._subscriber.channels) - 1}
        log.info("nats: %s is up, %d rooms subscribed", *fields.values(), extra=fields)
        self.failure = self.requests.trouble = None
        self.ready = True
        self._attempts += 1
        self._tell_change()

    def _tell_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _live(self) -> None:
        """One life of the link; ends by raising `LinkLost`, perhaps in a group."""
        location = self._location
        endpoint = self._endpoint = self._servers.next()
        timeout = location.settings.connect_timeout
        hostname = self._servers.hostname_of(endpoint)
        async with (
            open_connection(endpoint, location.login, location.tls, timeout, hostname) as connection,
            trio.open_nursery() as nursery,
        ):
            self.server = connection.info
            self._servers.learn(connection.info)
            nursery.start_soon(self._receive, connection)
            nursery.start_soon(connection.answer_pings)
            await nursery.start(self._own.run, connection)
            for hook in self._hooks:
                await hook(self._own)
            nursery.start_soon(self._subscriber.run, connection, self._confirm)
            await self._wait_restored(connection)
            if self._probe_channel.refusal is not None:
                raise LinkLost(str(self._probe_channel.refusal))
            # Not before, so that we hear what has waited.
            await nursery.start(self.requests.run, connection)
            await self._keep_probing(connection)

    async def _receive(self, connection: NatsConnection) -> None:
        while True:
            replies: list[Message] = []
            for event in await connection.receive():
                if isinstance(event, Control):
                    self._heed(event, connection)
                elif event.sid == _INBOX_SID:
                    replies.append(event)
                elif event.sid == _OWN_INBOX_SID:
                    self._own.take([event])
                else:
                    self._subscriber.take(event)
            if replies:
                self.requests.take(replies)

    def _heed(self, event: Control, connection: NatsConnection) -> None:
        if event.word == b"INFO":
            self._servers.learn(connection.info)
            if connection.info.leaving and self._servers.has_others:
                raise LinkLost("the server is about to close (lame duck mode)")
        elif event.word == b"-ERR":
            self._take_error(event.argument.decode(errors="replace").strip("'"))

    def _take_error(self, text: str) -> None:
        violation = _VIOLATION.match(text)
        if violation is None:
            raise LinkLost(f"the server says: {text}")
        subject = violation[2].encode()
        if violation[1] == "Subscription":
            refused = self._subscriber.refuse(subject, text)
        else:
            error = partial(BackplaneError, f"the broker refuses a publication: {text}")
            refused = self._own.refuse(subject, error) or self.requests.refuse(subject, error)
        if not refused:
            log.warning("nats: the server says: %s", text)

    async def _confirm(self) -> None:
        # Not a PING, which only tells of the server we are connected to: in a cluster it is the one with the stream
        # that has to know of a subscription, and what we publish gets there after it.
        parse_answer(await self._own.ask(self._probe_subject))

    async def _wait_restored(self, connection: NatsConnection) -> None:
        """As long as it takes, while something comes."""
        timeout, received = self._location.settings.probe_timeout, -1
        while received != connection.received:
            received = connection.received
            with trio.move_on_after(timeout):
                return await self._subscriber.wait_restored()
        raise LinkLost(f"subscriptions were not confirmed for {timeout:g} s")

    async def _keep_probing(self, connection: NatsConnection) -> None:
        settings, probe = self._location.settings, self._probe
        tick = min(settings.probe_interval, settings.probe_timeout / 2)  # so that one pause of ours is not all of it
        silent = 0.0  # seconds, counted in ticks: when it was we who stopped, that is one
        probe.returned = probe.sent
        while True:
            before, began = connection.received, trio.current_time()
            probe.sent += 1
            wait = min(tick, settings.probe_timeout - silent)
            with trio.move_on_after(wait) as waiting:
                await self._send_probe(probe.sent)
                await probe.wait(probe.sent)
            if not waiting.cancelled_caught:
                silent = 0.0
                self.meters.round_trips.observe(trio.current_time() - began)
                if not self.ready:
                    self._came_up()
                await trio.sleep(settings.probe_interval)
                continue
            late = tick * (probe.sent - probe.returned)  # of those on their way, the oldest: lag itself may be steady
            self.meters.round_trips.observe(late)  # or more: it is still on its way
            alive = connection.received != before
            silent = 0.0 if alive else silent + wait
            if not alive:
                self._stop_being_ready()
            if silent >= settings.probe_timeout or late >= _MAX_LAG * settings.probe_timeout:
                raise LinkLost(f"a probe did not come round within {late:g} s")

    async def _send_probe(self, number: int) -> None:
        try:
            parse_answer(await self._own.ask(self._probe_subject, b"%d" % number))
        except BackplaneUnavailable as exc:
            raise LinkLost(str(exc)) from exc
