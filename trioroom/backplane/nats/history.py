"""Histories of rooms in JetStream: all in one stream (``history_stream``), read page by page (``pages``)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from trioroom._core.history import History, Kept, Page, Position
from trioroom.backplane.base import Lost
from trioroom.backplane.nats.channel import NatsChannel
from trioroom.backplane.nats.epochs import Epoch, EpochChannel, Epochs
from trioroom.backplane.nats.history_stream import MARK, HistoryStream, Stored
from trioroom.backplane.nats.link import Link
from trioroom.backplane.nats.pages import Extent, PageReader
from trioroom.backplane.nats.protocol import Message
from trioroom.backplane.nats.requests import Requests
from trioroom.backplane.nats.server_clock import ServerClock
from trioroom.backplane.nats.settings import NatsSettings
from trioroom.backplane.nats.streams import JetStreamError
from trioroom.backplane.nats.subjects import Names, token_of
from trioroom.backplane.room_channel import RoomChannel
from trioroom.backplane.subscriptions import Subscriptions
from trioroom.errors import BackplaneError

_CLOCK_INTERVAL: Final = 60.0  # seconds; clocks drift apart, and the server's may be set
_LOOKS: Final = 8  # at a leader that seems to lack something: a new one may not have come to the end yet
_LOOK_INTERVAL: Final = 0.25  # seconds


class NatsHistory:
    """What `NatsBackplane.history` is."""

    dense_offsets = False
    """They are sequences of the stream, which all rooms share."""

    def __init__(self, link: Link, settings: NatsSettings) -> None:
        names = Names(settings.prefix)
        self._settings = settings
        self._link = link
        self._subject = f"{names.keep}room."
        self._delivered = f"{names.kept}room."
        self._epoch_subject = f"{names.keep}epoch"
        self._clock = ServerClock()
        self._epochs = Epochs(self._epoch_subject, self._clock)
        self._stream = HistoryStream(link.requests, settings)
        self._subscriptions = Subscriptions(link, settings.timeout, lambda name: KeptRoom(name, epochs=self._epochs))
        link.on_connection(self._settle)
        link.add(EpochChannel(f"{names.kept}epoch".encode(), epochs=self._epochs))

    async def _settle(self, requests: Requests) -> None:
        server = self._link.server
        incarnation = "" if server.cluster else server.id
        await self._epochs.settle(HistoryStream(requests, self._settings), incarnation)

    async def publish(
        self, room: str, payload: bytes, history: History | None, publication_id: str | None = None
    ) -> Position | None:
        """One round trip, which may be shared; two if ``history`` is None.

        Otherwise as `trioroom.backplane.base.HistoryStore.publish`.

        Raises:
            ValueError: more than ``max_publication_bytes``.
            BackplaneUnavailable: no answer within ``timeout``, or the link broke: it may have gone out or not.
            BackplaneError: the broker refused it, or ``history`` is more than the settings allow.
        """
        self._settings.check_payload(payload)
        token = token_of(room)
        subject = self._subject + token
        if history is not None:
            self._check(room, history)
        elif (await self._stream.ask_lasts(subject))[0] is None:
            return None
        headers = {} if publication_id is None else {"Nats-Msg-Id": f"{token}:{token_of(publication_id)}"}
        try:
            return self._epochs.confirm(await self._stream.append(subject, payload, headers))
        except JetStreamError as exc:
            raise BackplaneError(f"the broker refused a publication to room {room!r}: {exc}") from exc

    def _check(self, room: str, history: History) -> None:
        settings = self._settings
        if history.size > settings.max_history_size:
            raise BackplaneError(
                f"room {room!r} has History.size={history.size}, more than max_history_size="
                f"{settings.max_history_size} of the NATS backplane; raise that on all nodes, or keep less"
            )
        if history.ttl > settings.position_ttl:
            raise BackplaneError(
                f"room {room!r} has History.ttl={history.ttl:g} s, more than position_ttl={settings.position_ttl:g} s "
                "of the NATS backplane; raise that on all nodes, or keep it for less time"
            )

    @asynccontextmanager
    async def subscribe(self, room: str, channel: RoomChannel) -> AsyncIterator[None]:
        """As `NatsBackplane.subscribe`; what comes is `Kept` and `Lost`."""
        token = token_of(room)
        async with self._subscriptions.open((self._delivered + token).encode(), channel, room):
            if self._stream.replicated:
                # The stream may be led by a server that does not know of the subscription yet, but gets this after it.
                await self._stream.ask_last(self._subject + token)
            yield

    async def read_after(
        self, room: str, history: History, offset: int | None, limit: int, *, seen: Position | None = None
    ) -> Page:
        """Some round trips for up to a MiB of payload; as `trioroom.backplane.base.HistoryStore.read_after`."""
        return await (await self._open(room, history, seen)).after(offset, limit)

    async def read_before(self, room: str, history: History, offset: int, limit: int) -> Page:
        """The same backwards; some more where the room publishes unevenly."""
        return await (await self._open(room, history, None)).before(offset, limit)

    async def _open(self, room: str, history: History, seen: Position | None) -> PageReader:
        self._check(room, history)
        subject = self._subject + token_of(room)
        epoch, last = await self._find_end(subject, seen)
        extent = Extent(epoch, last.sequence, history.size, await self._ask_time(last.since), history.ttl)
        return PageReader(self._stream, subject, extent, self._settings.timeout)

    async def _find_end(self, subject: str, seen: Position | None) -> tuple[Epoch, Stored]:
        """The room's latest message, in the epoch that has all which was confirmed."""
        looks = 0
        while True:
            record, last = await self._stream.ask_lasts(self._epoch_subject, subject)
            epoch = self._epochs.parse(record)
            if epoch is None:
                await self._settle(self._link.requests)
            elif last is None:
                # So that the room has a place, which those who come to it know again.
                await self._stream.append_next(subject, 0, b"", {MARK: "1"})
            elif self._epochs.doubt or (seen is not None and epoch.lacks(seen, last.sequence)):
                looks += 1
                if not self._stream.replicated or looks > _LOOKS:
                    await self._epochs.begin_anew(self._stream, epoch)
                    seen = None
                else:
                    await trio.sleep(_LOOK_INTERVAL)
            else:
                self._epochs.adopt(epoch)
                return epoch, last

    async def _ask_time(self, latest: float) -> float:
        asked = trio.current_time()
        if asked - self._clock.observed > _CLOCK_INTERVAL:
            self._clock.observe((await self._stream.ask_state()).now, asked)
        return self._clock.now(latest)


@attrs.define(eq=False)
class KeptRoom(NatsChannel):
    """Publications of a room with a history, as the stream has numbered them."""

    epochs: Epochs = attrs.field(kw_only=True)
    latest: int = 0
    """The offset of what came last; 0 is none since it has been live."""
    mark: tuple[int, int] = (0, 0)
    """The latest mark that came, and what it follows."""

    def confirm(self) -> None:
        """What came before does not count any more, and is told to be lost."""
        self.latest = 0
        super().confirm()

    def take(self, message: Message) -> None:
        """What comes; where something that was there before is not there any more a loss, so that it is read."""
        headers = message.headers
        try:
            offset, follows = int(headers["Nats-Sequence"]), int(headers["Nats-Last-Sequence"])
        except (KeyError, ValueError):
            return  # not from the stream, so that it has no place in the order
        if self.latest and (offset <= self.latest or 0 < follows < self.latest):
            self.epochs.doubt = True
            self.deliver(Lost("backplane"))
        self.latest = offset
        if MARK in headers:
            self.mark = (offset, follows)
            return
        if follows == self.mark[0]:
            follows = self.mark[1]
        self.epochs.confirm(offset)
        name = self.epochs.current.name
        self.deliver(Kept(name, offset, message.payload, 0.0, None if follows == offset - 1 else follows))
