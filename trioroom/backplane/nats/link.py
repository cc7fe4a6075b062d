"""One connection to one of the servers, supervised, and a probe.

The probe has to come round within its time, or the link is given up: a connection that is open and silent may have lost
its other end or a proxy's state, and nothing else would ever tell.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final, TypeAlias

import trio

from trioroom._core.causes import first_of
from trioroom._core.meters import LinkMeters
from trioroom.backplane.nats.channel import NatsChannel
from trioroom.backplane.nats.connection import NatsConnection, ServerInfo, open_connection
from trioroom.backplane.nats.location import Location
from trioroom.backplane.nats.protocol import Control, Message
from trioroom.backplane.nats.relay_probe import RelayProbe
from trioroom.backplane.nats.requests import Requests
from trioroom.backplane.nats.servers import Servers
from trioroom.backplane.nats.streams import JetStreamUnavailable
from trioroom.backplane.nats.subscriber import Subscriber
from trioroom.backplane.supervision import Changes, LinkLost, SupervisedLink, link_closed
from trioroom.errors import BackplaneError

log = logging.getLogger("trioroom.backplane")
_INBOX_SID: Final = 1
_OWN_INBOX_SID: Final = 2
_MAX_OWN: Final = 256  # requests of the link's own and of hooks; they ask a few things at a time
_TOO_MANY: Final = "maximum subscriptions exceeded"
_VIOLATION: Final = re.compile(r"Permissions Violation for (Publish|Subscription) to \"([^\"]*)\"")

Hook: TypeAlias = Callable[[Requests], Awaitable[None]]
"""Asks by what it is given, which goes beside the queue of publications. Whatever `BackplaneError` it raises gives the
connection up, and the next one tries again."""
Confirmation: TypeAlias = Callable[[Requests, Collection[NatsChannel]], Awaitable[None]]
"""The same; it is told what has been subscribed."""


class Link(SupervisedLink):
    """`run` keeps it up until cancelled. Requests and channels outlive what happens to the connections."""

    def __init__(self, location: Location) -> None:
        settings = location.settings
        self.meters = LinkMeters()
        """What it has counted."""
        self.requests = Requests(
            _INBOX_SID, settings.timeout, settings.max_queued_publications, settings.max_queued_bytes, self.meters
        )
        changes = Changes()
        super().__init__("nats", settings.max_backoff, self.requests, self.meters, changes.tell)
        self.wait_changed = changes.wait
        """Until it has come up or gone down."""
        self.server = ServerInfo()
        """What the server says of itself that we are connected to, or were last."""
        self.leaderless = False
        """It is down as a cluster that took us has nobody who leads, or too few servers; soon it may have."""
        self._location = location
        self._servers = Servers(location.endpoints)
        self._hooks: list[Hook] = []
        self._confirmations: list[Confirmation] = []
        # Beside the queue of the others, which waits until rooms are live.
        self._own = Requests(_OWN_INBOX_SID, settings.connect_timeout, _MAX_OWN, settings.max_queued_bytes)
        self._subscriber = Subscriber(settings.max_publication_bytes)
        self._standing = 0  # channels that are ours and of no room: those that were there before it ran
        self._probe = RelayProbe(settings, self._own, self.meters)
        self.add(self._probe.channel)

    # -- for who uses it ---------------------------------------------------------------------------

    def on_connection(self, hook: Hook) -> None:
        """Have ``hook`` run on each new connection, before any channel is live or what waits is sent.

        Those that were given first run first.
        """
        self._hooks.append(hook)

    def confirm_by(self, hook: Confirmation) -> None:
        """Have ``hook`` run after each batch of subscriptions, before they are live.

        In a cluster a server hears of subscriptions at another one a little later. When one of them has answered what
        was asked after that, it has heard of them. The link asks the one that has the relay; who takes messages from
        another stream asks that one.
        """
        self._confirmations.append(hook)

    def add(self, channel: NatsChannel) -> None:
        """Listen to the subject that is its name, and tell it when it is live."""
        self._subscriber.add(channel)

    def remove(self, channel: NatsChannel) -> None:
        """Listen to it no longer."""
        self._subscriber.remove(channel)

    def lose(self, concerns: Callable[[NatsChannel], bool]) -> None:
        """Something may have been lost at the broker: the channels which that ``concerns`` tell so if they are live."""
        self._subscriber.lose(concerns)

    # -- its life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect, and again whenever it is lost; only cancelling ends it."""
        self._standing = len(self._subscriber.channels)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._own.expire)
                await super().run()
        finally:
            self._own.give_up(link_closed)

    def _rooms(self) -> int:
        return len(self._subscriber.channels) - self._standing

    async def _live(self) -> None:
        async with self._open_any() as connection, trio.open_nursery() as nursery:
            self.server = connection.info
            nursery.start_soon(self._receive, connection)
            nursery.start_soon(connection.answer_pings)
            # Both before any room, which might take the last place that the server has for subscriptions.
            await connection.send(self._own.subscription + self.requests.subscription)
            await nursery.start(self._own.run, connection)
            for hook in self._hooks:
                await hook(self._own)
            self._probe.begin()
            nursery.start_soon(self._subscriber.run, connection, self._confirm)
            timeout = self._location.settings.probe_timeout
            await self._wait_restored(lambda: connection.received, self._subscriber.wait_restored, timeout)
            if self._probe.channel.refusal is not None:
                raise LinkLost(str(self._probe.channel.refusal))
            # Not before, so that we hear what has waited.
            await nursery.start(self.requests.run, connection)
            await self._probe.keep_probing(self._set_ready, self._traffic)

    def _lost(self, error: BaseExceptionGroup[BackplaneError]) -> None:
        self.leaderless = bool(self.server.cluster) and isinstance(first_of(error), JetStreamUnavailable)
        self._attempts += self.leaderless  # so that the log has it: who opens it waits, and does not tell
        super()._lost(error)

    def _traffic(self) -> tuple[int, int]:
        return self._subscriber.heard, self.requests.answered + self._own.answered

    @asynccontextmanager
    async def _open_any(self) -> AsyncIterator[NatsConnection]:
        """A connection to the first server that takes us."""
        location, failures = self._location, list[str]()
        self._endpoint = None
        async with AsyncExitStack() as stack:
            for endpoint in self._servers.in_turn():
                opening = open_connection(
                    endpoint,
                    location.login,
                    location.tls,
                    location.settings.connect_timeout,
                    self._servers.hostname_of(endpoint),
                )
                try:
                    connection = await stack.enter_async_context(opening)
                    break
                except LinkLost as exc:
                    failures.append(f"{endpoint}: {exc}")
            else:
                raise LinkLost("; ".join(failures))
            self._endpoint = endpoint
            self._servers.learn(endpoint, connection.info)
            yield connection

    async def _confirm(self, channels: Collection[NatsChannel]) -> int:
        # Not a PING, which only tells of the server we are connected to: in a cluster it is the one with the stream
        # that has to know of a subscription, and what we publish gets there after it.
        number = await self._probe.pass_by()
        for hook in self._confirmations:
            await hook(self._own, channels)
        return number

    # -- what comes --------------------------------------------------------------------------------

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
        if event.word == b"INFO" and self._endpoint is not None:
            self._servers.learn(self._endpoint, connection.info)
            if connection.info.leaving and self._servers.has_others:
                raise LinkLost("the server is about to close (lame duck mode)")
        elif event.word == b"-ERR":
            self._take_error(event.text)

    def _take_error(self, text: str) -> None:
        violation = _VIOLATION.match(text)
        if violation is None:
            if text == _TOO_MANY and self._subscriber.refuse_last(text):
                return
            raise LinkLost(f"the server says: {text}")
        subject = violation[2].encode()
        if violation[1] == "Subscription":
            refused = self._subscriber.refuse(subject, text)
        else:
            error = partial(BackplaneError, f"the broker refuses a publication: {text}")
            refused = self._own.refuse(subject, error) or self.requests.refuse(subject, error)
        if not refused:
            log.warning("nats: the server says: %s", text)
