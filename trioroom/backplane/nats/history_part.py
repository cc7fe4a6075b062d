"""A part of the rooms with a history: those in one stream, whose epochs and clock they share."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from trioroom._core.history import History, Position
from trioroom.backplane.nats.epochs import Epoch, EpochChannel, Epochs
from trioroom.backplane.nats.history_stream import MARK, HistoryStream, Stored
from trioroom.backplane.nats.kept_room import KeptRoom
from trioroom.backplane.nats.link import Link
from trioroom.backplane.nats.pages import Extent, PageReader
from trioroom.backplane.nats.relay import StreamLeaders
from trioroom.backplane.nats.requests import NoResponders, Requests
from trioroom.backplane.nats.server_clock import ServerClock
from trioroom.backplane.nats.settings import NatsSettings
from trioroom.backplane.nats.subjects import Names
from trioroom.backplane.room_channel import RoomChannel
from trioroom.backplane.subscriptions import Subscriptions
from trioroom.errors import BackplaneUnavailable

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
        self._preparing = trio.Lock()
        self._heard = False  # the server that has the stream knows of all that was subscribed when we connected
        self._keep, self._kept = names.keep(number), names.kept(number)
        self._clock = ServerClock()
        self._epochs = Epochs(f"{self._keep}epoch", self._clock, self._find_incarnation)
        self._stream = HistoryStream(link.requests, settings, number)
        self._subscriptions = Subscriptions(link, settings.timeout, partial(KeptRoom, epochs=self._epochs))
        link.add(EpochChannel(f"{self._kept}epoch".encode(), epochs=self._epochs))
        leaders = names.leaders_of(self._name).encode()
        link.add(StreamLeaders(leaders, lose=self._lose))

    def _lose(self) -> None:
        self._link.lose(lambda channel: isinstance(channel, KeptRoom) and channel.epochs is self._epochs)

    async def settle(self, requests: Requests) -> None:
        """Have the stream, and know its epoch, on a new connection.

        In a cluster other rooms do not wait for a stream that has no leader now; who comes to one of its own does.
        """
        self._epochs.settled = False
        self._heard = not self._link.server.cluster
        try:
            with trio.fail_after(self._settings.timeout):
                await self._settle(requests)
        except (BackplaneUnavailable, trio.TooSlowError) as exc:
            if not self._link.server.cluster:
                raise BackplaneUnavailable(f"JetStream does not answer for {self._name}: {exc}") from exc
            fields = {"stream": self._name, "reason": str(exc) or "no answer"}
            log.warning("nats: stream %s cannot be used now: %s", *fields.values(), extra=fields)

    async def _settle(self, requests: Requests) -> None:
        await self._epochs.settle(HistoryStream(requests, self._settings, self._number))

    async def _wait_ready(self) -> None:
        """Until what comes is known for what it is, and nothing is kept from us.

        In a cluster another server than ours may have the stream, which hears of our subscriptions later.
        """
        if self._epochs.settled and self._heard:
            return
        async with self._preparing:
            if not self._epochs.settled:
                await self._settle(self._link.requests)
            if not self._heard:
                await self._ask_to_be_heard()
                self._heard = True
                await self._settle(self._link.requests)  # a record that was written before has not come

    async def _ask_to_be_heard(self) -> None:
        """Something that is stored behind our subscriptions says that they are known there; it is gone in a second."""
        await self._stream.append(f"{self._keep}heard", b"", {"Nats-TTL": "1s"})

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
        await self._wait_ready()
        try:
            return self._epochs.confirm(await self._stream.append(self._subject(token), payload, headers))
        except NoResponders:
            self._epochs.settled = False  # somebody may have removed it
            raise

    @asynccontextmanager
    async def subscribe(self, token: str, channel: RoomChannel, room: str) -> AsyncIterator[None]:
        """What is stored while the context is open comes to ``channel``; ``room`` is for messages."""
        await self._wait_ready()
        async with self._subscriptions.open(f"{self._kept}room.{token}".encode(), channel, room):
            if self._link.server.cluster:
                await self._ask_to_be_heard()
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
        await self._wait_ready()
        while True:
            try:
                record, last = await self._stream.ask_lasts(f"{self._keep}epoch", subject)
            except NoResponders:
                record = last = None
            if (epoch := self._epochs.parse(record)) is None:
                self._epochs.settled = False  # somebody has removed it
                await self._wait_ready()
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
