"""A part of the rooms with a history: those in one stream, whose epochs and clock they share."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from trioroom._core.history import History, Position
from trioroom.backplane.nats.channel import NatsChannel
from trioroom.backplane.nats.epochs import Epoch, EpochChannel, Epochs
from trioroom.backplane.nats.history_stream import MARK, HistoryStream, Stored
from trioroom.backplane.nats.kept_room import KeptRoom
from trioroom.backplane.nats.link import Link
from trioroom.backplane.nats.pages import Extent, PageReader
from trioroom.backplane.nats.relay import StreamLeaders
from trioroom.backplane.nats.requests import NoResponders, Requests
from trioroom.backplane.nats.server_clock import ServerClock
from trioroom.backplane.nats.settings import NatsSettings
from trioroom.backplane.nats.streams import append
from trioroom.backplane.nats.subjects import Names
from trioroom.backplane.room_channel import RoomChannel
from trioroom.backplane.subscriptions import Subscriptions
from trioroom.errors import BackplaneError, BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
_CLOCK_INTERVAL: Final = 60.0  # seconds; clocks drift apart, and the server's may be set
_LOOKS: Final = 8  # at a leader that seems to lack something: a new one may not have come to the end yet
_LOOK_INTERVAL: Final = 0.25  # seconds


class HistoryPart:
    """Rooms are known by their tokens here, see `trioroom.backplane.nats.subjects.token_of`."""

    def __init__(self, link: Link, settings: NatsSettings, number: int) -> None:
        names = Names(settings.prefix)
        self._link = link
        self._settings = settings
        self._number = number
        self._name = names.history(number)
        self._settling = trio.Lock()
        self._reached = False  # the stream has answered on this connection, last of all
        self._keep, self._kept = names.keep(number), names.kept(number)
        self._clock = ServerClock()
        self._epochs = Epochs(f"{self._keep}epoch", self._clock, self._find_incarnation)
        self._stream = HistoryStream(link.requests, settings, number)
        self._subscriptions = Subscriptions(link, settings.timeout, partial(KeptRoom, epochs=self._epochs))
        link.add(EpochChannel(f"{self._kept}epoch".encode(), epochs=self._epochs))
        leaders = names.leaders_of(self._name).encode()
        link.add(StreamLeaders(leaders, lose=self._lose))
        link.confirm_by(self._wait_heard)

    def _lose(self) -> None:
        self._link.lose(lambda channel: isinstance(channel, KeptRoom) and self._concerns(channel))

    def _concerns(self, channel: NatsChannel) -> bool:
        return isinstance(channel, (KeptRoom, EpochChannel)) and channel.epochs is self._epochs

    async def settle(self, requests: Requests) -> None:
        """Have the stream, and know its epoch, on a new connection.

        In a cluster other rooms do not wait for a stream that has no leader now; who comes to one of its own does.
        """
        self._epochs.settled = self._reached = False
        try:
            with trio.fail_after(self._settings.timeout):
                await self._settle(requests)
        except (BackplaneUnavailable, trio.TooSlowError) as exc:
            if not self._link.server.cluster:
                raise BackplaneUnavailable(f"stream {self._name}: {str(exc) or 'no answer'}") from exc
            self._warn(exc)

    async def _settle(self, requests: Requests) -> None:
        await self._epochs.settle(HistoryStream(requests, self._settings, self._number))
        self._reached = True

    async def _wait_settled(self) -> None:
        """Until what comes is known for what it is."""
        if self._epochs.settled:
            return
        async with self._settling:
            if not self._epochs.settled:
                await self._settle(self._link.requests)

    async def _wait_heard(self, requests: Requests, channels: Collection[NatsChannel]) -> None:
        """Until the server that has the stream knows of our subscriptions, and has passed on what came before them.

        Of a cluster it may be another one than ours. Something stored behind them says so, and is gone in a second.
        When there is no leader, the one to come is told to all, and until then nothing is delivered but a loss.
        """
        if not (self._link.server.cluster and self._reached and any(map(self._concerns, channels))):
            return
        try:
            await append(requests, f"{self._keep}heard", b"", {"Nats-TTL": "1s"})
        except BackplaneError as exc:
            self._epochs.settled = self._reached = False
            self._warn(exc)

    def _warn(self, exc: Exception) -> None:
        fields = {"stream": self._name, "reason": str(exc) or "no answer"}
        log.warning("nats: stream %s cannot be used now: %s", *fields.values(), extra=fields)

    def _find_incarnation(self) -> str:
        return "" if self._link.server.cluster else self._link.server.id

    def _subject(self, token: str) -> str:
        return f"{self._keep}room.{token}"

    async def is_known(self, token: str) -> bool:
        """Whether the room has been published to, or read, within ``position_ttl``."""
        return (await self._stream.ask_lasts(self._subject(token)))[0] is not None

    async def append(self, token: str, payload: bytes, message_id: str | None) -> Position:
        """The position of what is now stored, or of the first one with that id.

        Raises:
            JetStreamError: the server refuses.
            BackplaneUnavailable: as `trioroom.backplane.nats.streams.append`.
        """
        headers = {} if message_id is None else {"Nats-Msg-Id": f"{token}:{message_id}"}
        await self._wait_settled()
        try:
            return self._epochs.confirm(await self._stream.append(self._subject(token), payload, headers))
        except NoResponders:
            self._epochs.settled = False  # somebody may have removed it
            raise

    @asynccontextmanager
    async def subscribe(self, token: str, channel: RoomChannel, room: str) -> AsyncIterator[None]:
        """What is stored while the context is open comes to ``channel``; ``room`` is for messages."""
        await self._wait_settled()
        async with self._subscriptions.open(f"{self._kept}room.{token}".encode(), channel, room):
            yield

    async def open_pages(self, token: str, history: History, seen: Position | None = None) -> PageReader:
        """For one page, as the room is now; see `trioroom.backplane.base.HistoryStore.read_after`."""
        subject = self._subject(token)
        epoch, last = await self._find_end(subject, seen)
        extent = Extent(epoch, last.sequence, history.size, await self._ask_time(last.since), history.ttl)
        return PageReader(self._stream, subject, extent, self._settings.timeout)

    async def _find_end(self, subject: str, seen: Position | None) -> tuple[Epoch, Stored]:
        """The room's latest message, in the epoch that has all which was confirmed."""
        looks = 0
        await self._wait_settled()
        while True:
            try:
                record, last = await self._stream.ask_lasts(f"{self._keep}epoch", subject)
            except NoResponders:
                record = last = None
            if (epoch := self._epochs.parse(record)) is None:
                self._epochs.settled = False  # somebody has removed it
                await self._wait_settled()
            elif last is None:
                # So that the room has a place, which those who come to it know again.
                await self._stream.append_next(subject, 0, b"", {MARK: "1"})
            elif self._epochs.doubt or self._epochs.has_ended(epoch) or epoch.lacks(seen, last.sequence):
                looks += 1
                if not self._stream.replicated or looks > _LOOKS:
                    await self._epochs.begin_anew(self._stream, epoch)
                    seen = None
                else:
                    await trio.sleep(_LOOK_INTERVAL)
            elif self._epochs.adopt(epoch):
                return epoch, last

    async def _ask_time(self, latest: float) -> float:
        asked = trio.current_time()
        if asked - self._clock.observed > _CLOCK_INTERVAL:
            self._clock.observe((await self._stream.ask_state()).now, asked)
        return self._clock.now(latest)
