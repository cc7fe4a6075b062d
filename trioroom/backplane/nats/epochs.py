"""The epochs of all histories, which are in one stream and so begin and end together.

Each begins with a record in the stream itself, so that all see it at one place among the publications. A server that
stands alone has an epoch for each of its incarnations, that goes on from what it found: what an older one confirmed
after that place is lost. A cluster has copies, and loses nothing by a restart of one server. There, as everywhere, an
epoch that goes on from nothing begins when something that was confirmed turns out to be missing.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable
from typing import Any, Final

import attrs
import trio

from trioroom._core.history import Position
from trioroom.backplane.nats.channel import NatsChannel
from trioroom.backplane.nats.history_stream import HistoryStream, Stored
from trioroom.backplane.nats.protocol import Message
from trioroom.backplane.nats.server_clock import ServerClock
from trioroom.backplane.nats.streams import NOT_THERE, JetStreamError
from trioroom.errors import BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
_LOOKS: Final = 8  # before something is missing for certain: a leader that is new may not have come to the end yet
_LOOK_INTERVAL: Final = 0.25  # seconds
_MAX_BEFORE: Final = 16  # epochs that one knows; a server may restart so often before a node hears of it


@attrs.frozen
class Before:
    """An epoch, as a later one knows it."""

    name: str
    end: int | None
    """The offset up to which its publications are good in that one too; None: none is."""


@attrs.frozen
class Epoch:
    """From one record to the next."""

    name: str
    begin: int
    """The record's own offset."""
    incarnation: str
    """Of the server it was written to; nothing in a cluster."""
    before: tuple[Before, ...] = ()
    """The latest first."""

    @property
    def origin(self) -> Position | None:
        """As `trioroom._core.history.Page.previous`."""
        if not self.before or self.before[0].end is None:
            return None
        return Position(self.before[0].name, self.before[0].end)

    @property
    def floor(self) -> int:
        """The offset up to which nothing counts."""
        return self.begin if self.origin is None else 0

    def lacks(self, position: Position | None, last: int) -> bool:
        """Whether it should have ``position``, which was confirmed, and does not; ``last`` is as far as it goes.

        That may be a room's own end; where its last publication is of an older epoch, it stands where this one begins.
        """
        if position is None:
            return False
        if position.epoch == self.name:
            return position.offset > max(last, self.begin)
        for before in self.before:
            if before.name == position.epoch:
                return before.end is not None and position.offset > before.end
        return len(self.before) < _MAX_BEFORE  # else it was so long ago that nobody knows


def parse_record(payload: bytes, sequence: int) -> Epoch:
    """What `_pack_record` has made, at its place in the stream.

    Raises:
        BackplaneUnavailable: it is something else.
    """
    try:
        told: dict[str, Any] = json.loads(payload)
        before = [Before(str(name), None if end is None else int(end)) for name, end in told["before"]]
        if told["goes_on"]:
            before[0] = Before(before[0].name, sequence - 1)
        return Epoch(str(told["epoch"]), sequence, str(told["incarnation"]), tuple(before[:_MAX_BEFORE]))
    except (IndexError, KeyError, TypeError, ValueError, RecursionError) as exc:
        raise BackplaneUnavailable(f"{payload[:80]!r} is no epoch's record; is the prefix used by others?") from exc


def _pack_record(incarnation: str, before: list[Before], *, goes_on: bool) -> bytes:
    known = [[each.name, each.end if goes_on else None] for each in before[:_MAX_BEFORE]]
    record = {"epoch": secrets.token_hex(8), "incarnation": incarnation, "goes_on": goes_on, "before": known}
    return json.dumps(record).encode()


class Epochs:
    """Which one it is. `settle` on each connection before any publication goes out on it, or comes."""

    def __init__(self, subject: str, clock: ServerClock, incarnation: Callable[[], str]) -> None:
        """``incarnation`` is that of the server which has answered last: it may be another one after each request."""
        self._subject = subject
        self._incarnation = incarnation
        self._clock = clock
        self._current: Epoch | None = None
        self._latest: Position | None = None  # of all rooms, the last one that was confirmed to this node
        self.settled = False
        """It is the server's that we are connected to."""
        self.doubt = False
        """Something that was confirmed is not there any more; the next reader begins another epoch."""

    @property
    def current(self) -> Epoch:
        """As of the latest record that has come to us."""
        assert self._current is not None, "it is settled before anything else"
        return self._current

    def confirm(self, offset: int) -> Position:
        """The store has a publication there; its position."""
        name, latest = self.current.name, self._latest
        position = Position(name, offset)
        if latest is None or name != latest.epoch or offset > latest.offset:
            self._latest = position
        return position

    async def settle(self, stream: HistoryStream) -> None:
        """Have the stream, in an epoch that is the server's and has all that was confirmed to us."""
        self.settled = False
        while not self.settled:
            epoch = self.parse(await self._find_record(stream))
            if epoch is None or await self._is_lacking(epoch, stream):
                await self.begin_anew(stream, epoch)
            elif epoch.incarnation != self._incarnation():
                await self._write(stream, epoch, goes_on=True)
            else:
                self.settled = self.adopt(epoch)

    async def _find_record(self, stream: HistoryStream) -> Stored | None:
        if self._current is not None:
            # All is as it should be, unless somebody has removed the stream. It is not made sure of again and again,
            # which a cluster that has no leader for that could not answer, though the stream may have one.
            try:
                asked = trio.current_time()
                self._clock.observe((await stream.ask_state()).now, asked)
                return await stream.ask_last(self._subject)
            except JetStreamError as exc:
                if exc.err_code != NOT_THERE:
                    raise
        asked = trio.current_time()
        self._clock.observe((await stream.ensure()).now, asked)
        return await stream.ask_last(self._subject)

    async def _is_lacking(self, epoch: Epoch, stream: HistoryStream) -> bool:
        for _ in range(_LOOKS):
            state = await stream.ask_state()
            if not self.has_ended(epoch) and not epoch.lacks(self._latest, state.last_sequence):
                return False
            if not stream.replicated:
                return True
            await trio.sleep(_LOOK_INTERVAL)
        return True

    async def begin_anew(self, stream: HistoryStream, lost: Epoch | None) -> None:
        """End ``lost``, which lacks something, unless that has been done. What follows goes on from nothing."""
        while True:
            epoch = self.parse(await stream.ask_last(self._subject))
            if epoch is not None and (lost is None or epoch.name != lost.name):
                self.adopt(epoch)
                return
            await self._write(stream, epoch, goes_on=False)

    async def _write(self, stream: HistoryStream, old: Epoch | None, *, goes_on: bool) -> None:
        before = [] if old is None else [Before(old.name, None), *old.before]
        if not goes_on:
            before = [*self._find_unknown(before), *before]
        record = _pack_record(self._incarnation(), before, goes_on=goes_on)
        # It outlives all publications. Where another node has written one at the same time, that counts.
        await stream.append_next(self._subject, 0 if old is None else old.begin, record, {"Nats-TTL": "never"})

    def _find_unknown(self, before: list[Before]) -> list[Before]:
        """Epochs that we know of, and the stream does not any more: so that all know that they have ended.

        Those before them too, for other nodes may not have come further.
        """
        current = self._current
        heard_of = [] if current is None else [current.name, *(each.name for each in current.before)]
        if self._latest is not None:
            heard_of.append(self._latest.epoch)
        known = {each.name for each in before}
        return [Before(name, None) for name in dict.fromkeys(heard_of) if name not in known]

    def parse(self, record: Stored | None) -> Epoch | None:
        """The epoch that a message of the subject begins."""
        return None if record is None else parse_record(record.payload, record.sequence)

    def has_ended(self, epoch: Epoch) -> bool:
        """Whether we have heard of a later one. If that is not in the stream any more, the stream has lost it."""
        return self._current is not None and epoch.name in (each.name for each in self._current.before)

    def adopt(self, epoch: Epoch) -> bool:
        """It is the latest one; False if we know better, as its successor has come meanwhile."""
        if self.has_ended(epoch):
            return False
        before, self._current = self._current, epoch
        if before is not None and before.name != epoch.name:
            self._tell(epoch)
        return True

    def _tell(self, epoch: Epoch) -> None:
        self.doubt = False
        if epoch.origin is None:
            fields = {"epoch": epoch.name, "offset": epoch.begin}
            log.warning("nats: histories have lost publications, and begin anew at %d", epoch.begin, extra=fields)


@attrs.define(eq=False)
class EpochChannel(NatsChannel):
    """On which records come, as soon as they are written."""

    epochs: Epochs = attrs.field(kw_only=True)

    def confirm(self) -> None:
        """From here on; one that was written since we looked has not come."""
        self.epochs.settled = False
        super().confirm()

    def take(self, message: Message) -> None:
        """What comes next is of this epoch."""
        try:
            self.epochs.adopt(parse_record(message.payload, int(message.headers["Nats-Sequence"])))
        except (KeyError, ValueError, BackplaneUnavailable) as exc:
            log.warning("nats: dropped a record of an epoch: %s", exc)
