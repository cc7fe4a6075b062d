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
from typing import Final

import attrs
import trio

from trioroom._core.history import Position, same_place
from trioroom.backplane.nats.channel import NatsChannel
from trioroom.backplane.nats.history_stream import HistoryStream, Stored
from trioroom.backplane.nats.protocol import Message
from trioroom.backplane.nats.server_clock import ServerClock
from trioroom.errors import BackplaneUnavailable

log = logging.getLogger("trioroom.backplane")
_LOOKS: Final = 8  # before something is missing for certain: a leader that is new may not have come to the end yet
_LOOK_INTERVAL: Final = 0.25  # seconds


@attrs.frozen
class Epoch:
    """From one record to the next."""

    name: str
    begin: int
    """The record's own offset."""
    previous: str | None
    """The epoch whose publications are good in this one too; None goes on from nothing."""
    incarnation: str
    """Of the server that wrote it; nothing in a cluster."""

    @property
    def origin(self) -> Position | None:
        """As `trioroom._core.history.Page.previous`."""
        return None if self.previous is None else Position(self.previous, self.begin - 1)

    @property
    def floor(self) -> int:
        """The offset up to which nothing counts."""
        return self.begin if self.previous is None else 0

    def lacks(self, position: Position, end: int) -> bool:
        """Whether it should have ``position``, as far as it knows that epoch, and does not; ``end`` is its latest."""
        known = position.epoch == self.name or position.epoch == self.previous
        return known and same_place(position, Position(self.name, end), self.origin) is None


def parse_record(payload: bytes, sequence: int) -> Epoch:
    """What `pack_record` has made.

    Raises:
        BackplaneUnavailable: it is something else.
    """
    try:
        told = json.loads(payload)
        previous = told["previous"]
        name, incarnation = str(told["epoch"]), str(told["incarnation"])
        return Epoch(name, sequence, None if previous is None else str(previous), incarnation)
    except (KeyError, TypeError, ValueError, RecursionError) as exc:
        raise BackplaneUnavailable(f"{payload[:80]!r} is no epoch's record; is the prefix used by others?") from exc


def pack_record(name: str, previous: str | None, incarnation: str) -> bytes:
    """The payload of a record."""
    return json.dumps({"epoch": name, "previous": previous, "incarnation": incarnation}).encode()


class Epochs:
    """Which one it is. `settle` on each connection before any publication goes out on it, or comes."""

    def __init__(self, subject: str, clock: ServerClock) -> None:
        self._subject = subject
        self._clock = clock
        self._current: Epoch | None = None
        self._latest = Position("", 0)  # of all rooms, the last one that was confirmed to this node
        self.doubt = False
        """Something was confirmed, and is not there any more; the next reader begins another epoch."""

    @property
    def current(self) -> Epoch:
        """As of the latest record that has come to us."""
        assert self._current is not None, "it is settled before anything else"
        return self._current

    def confirm(self, offset: int) -> Position:
        """The store has a publication there; its position."""
        name = self.current.name
        if name != self._latest.epoch or offset > self._latest.offset:
            self._latest = Position(name, offset)
        return Position(name, offset)

    async def settle(self, stream: HistoryStream, incarnation: str) -> None:
        """Have the stream, in an epoch that is the server's and has all that was confirmed to us."""
        while True:
            asked = trio.current_time()
            state = await stream.ensure()
            self._clock.observe(state.now, asked)
            epoch = self.parse(await stream.ask_last(self._subject))
            if epoch is None or await self._is_lacking(epoch, stream):
                await self._write(stream, epoch, None, incarnation)
            elif epoch.incarnation != incarnation:
                await self._write(stream, epoch, epoch.name, incarnation)
            else:
                return self.adopt(epoch)

    async def _is_lacking(self, epoch: Epoch, stream: HistoryStream) -> bool:
        for _ in range(_LOOKS):
            if not epoch.lacks(self._latest, (await stream.ask_state()).last_sequence):
                return False
            if not stream.replicated:
                return True
            await trio.sleep(_LOOK_INTERVAL)
        return True

    async def begin_anew(self, stream: HistoryStream, lost: Epoch) -> None:
        """End ``lost``, which has lost something, unless that has been done. What follows goes on from nothing."""
        while (epoch := self.parse(await stream.ask_last(self._subject))) is None or epoch.name == lost.name:
            await self._write(stream, epoch, None, lost.incarnation)
        self.adopt(epoch)

    async def _write(self, stream: HistoryStream, before: Epoch | None, previous: str | None, incarnation: str) -> None:
        record = pack_record(secrets.token_hex(8), previous, incarnation)
        after = 0 if before is None else before.begin
        # It outlives all publications. Where another node has written one at the same time, that counts.
        await stream.append_next(self._subject, after, record, {"Nats-TTL": "never"})

    def parse(self, record: Stored | None) -> Epoch | None:
        """The epoch that a message of the subject begins."""
        return None if record is None else parse_record(record.payload, record.sequence)

    def adopt(self, epoch: Epoch) -> None:
        """It is the latest one."""
        before, self._current = self._current, epoch
        if before is None or before.name == epoch.name:
            return
        self.doubt = False
        if epoch.previous is None:
            fields = {"epoch": epoch.name, "offset": epoch.begin}
            log.warning("nats: histories have lost publications, and begin anew at %d", epoch.begin, extra=fields)


@attrs.define(eq=False)
class EpochChannel(NatsChannel):
    """On which records come, as soon as they are written."""

    epochs: Epochs = attrs.field(kw_only=True)

    def take(self, message: Message) -> None:
        """What comes next is of this epoch."""
        try:
            self.epochs.adopt(parse_record(message.payload, int(message.headers["Nats-Sequence"])))
        except (KeyError, ValueError, BackplaneUnavailable) as exc:
            log.warning("nats: dropped a record of an epoch: %s", exc)
