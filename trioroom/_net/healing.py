"""Between a room's channel and its fan-out: what is missing is read from the history, what came twice is dropped."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import attrs
import trio

from trioroom._core.history import History, Kept, Page, Position, same_place
from trioroom.backplane.base import Lost
from trioroom.errors import BackplaneUnavailable

if TYPE_CHECKING:
    from trioroom.backplane.base import Delivery, HistoryStore
    from trioroom.backplane.room_channel import RoomChannel

log = logging.getLogger("trioroom.history")
_PAGE = 256  # publications of one read
_RETRY_INTERVAL = 0.25  # seconds between two attempts to read, beside what the backplane itself waits


@attrs.frozen
class Turn:
    """What follows comes after ``position``; ``lost`` is what cannot be had, None if only the epoch is another one."""

    position: Position
    previous: Position | None
    lost: Lost | None


Healed = Kept | Turn


class HealingChannel:
    """A `RoomChannel` as the fan-out reads it: each publication of the room once, and none is missing between two.

    An outage, a channel that overflowed, a delivery that was lost: all is one case, and ends with what the history
    has. Only what it does not hold any more becomes a loss.
    """

    def __init__(self, store: HistoryStore, room: str, history: History, channel: RoomChannel) -> None:
        self._store = store
        self._room = room
        self._history = history
        self._channel = channel
        self._position = Position("", 0)
        self._confirmed: dict[str, int] = {}  # by epoch, the last offset that the store once had and we have not passed
        self._healed: deque[Healed] = deque()
        self._behind: str | None = None  # why we have to read; None while what comes follows

    async def begin(self, max_age: float = 0.0) -> Turn:
        """Where the history ends, once the channel is subscribed: what is live follows.

        Args:
            max_age: what was published so many seconds ago, or later, comes too.
        Raises:
            BackplaneUnavailable: the broker cannot be reached.
        """
        page = await self._store.read_after(self._room, self._history, None, 0)
        self._position = page.position
        self._confirmed.clear()  # by publications before; nobody here has seen what came before this
        if max_age > 0:
            await self._go_back(max_age)
        return Turn(page.position, page.previous, None)

    async def _go_back(self, max_age: float) -> None:
        while True:
            page = await self._store.read_before(self._room, self._history, self._position.offset + 1, _PAGE)
            young = [kept for kept in page.kept if kept.age <= max_age]
            if young:
                self._position = Position(young[0].epoch, young[0].offset - 1)
                self._behind = "backplane"
            if not young or len(young) < len(page.kept):
                return

    def confirm(self, position: Position) -> None:
        """The store has it: one of our own publications."""
        self._note(position)
        if position.epoch != self._position.epoch:
            self.look_again()  # it may be of an epoch that we have taken leave of: then it is lost

    def look_again(self) -> None:
        """Read what is missing, if anything is, once what waits in the channel has been passed on."""
        if not self._channel.put_nowait(Lost("backplane")):  # full: then at once
            self._behind = self._behind or "backplane"

    def _note(self, position: Position) -> None:
        known = (
            self._position.offset if position.epoch == self._position.epoch else self._confirmed.get(position.epoch, 0)
        )
        if position.offset > known:
            self._confirmed[position.epoch] = max(position.offset, self._confirmed.get(position.epoch, 0))

    async def receive(self) -> Healed:
        """The next one in order; always a checkpoint.

        Raises:
            trio.ClosedResourceError: the channel is closed.
        """
        if not self._healed and self._behind is None:
            if (kept := self._in_order(await self._channel.receive())) is not None:
                return kept
        else:
            await trio.lowlevel.checkpoint()
        while not self._healed:
            if self._behind is not None:
                await self._read_on(self._behind)
            elif (kept := self._in_order(await self._channel.receive())) is not None:
                return kept
        return self._healed.popleft()

    def receive_nowait(self) -> Healed:
        """The next one, if it is here.

        Raises:
            trio.WouldBlock: there is none, or it has to be read.
            trio.ClosedResourceError: the channel is closed.
        """
        if self._healed:
            return self._healed.popleft()
        while self._behind is None:
            if (kept := self._in_order(self._channel.receive_nowait())) is not None:
                return kept
        raise trio.WouldBlock

    def _in_order(self, delivery: Delivery) -> Kept | None:
        """It, if it is the next one. Else it came twice, or we are `_behind` from now on."""
        here = self._position
        if type(delivery) is Kept:
            if delivery.epoch == here.epoch:
                if delivery.offset == here.offset + 1:
                    self._position = Position(delivery.epoch, delivery.offset)
                    return delivery
                if delivery.offset <= here.offset:
                    return None
                if delivery.place_before <= here.offset:
                    self._position = Position(delivery.epoch, delivery.offset)
                    return delivery
            self._note(Position(delivery.epoch, delivery.offset))
        elif type(delivery) is Lost:
            for position in delivery.dropped:
                self._note(position)
        self._behind = delivery.reason if isinstance(delivery, Lost) else "backplane"
        return None

    async def _read_on(self, reason: str) -> None:
        here, confirmed = self._position, dict(self._confirmed)
        seen = Position(here.epoch, max(here.offset, confirmed.get(here.epoch, 0)))
        try:
            page = await self._read(seen)
            if (gone := self._gone(page, confirmed)) is not None:
                page = await self._read(gone)  # so the store learns that it has lost something: maybe others had it
        except BackplaneUnavailable as exc:
            log.debug("room %s: cannot read what is missing: %s", self._room, exc, extra={"room": self._room})
            return await trio.sleep(_RETRY_INTERVAL)
        self._take(page, here.offset, reason)

    async def _read(self, seen: Position) -> Page:
        return await self._store.read_after(self._room, self._history, self._position.offset, _PAGE, seen=seen)

    def _take(self, page: Page, asked: int, reason: str) -> None:
        """Go on with what follows the place ``asked``."""
        end, shared = page.position, 0 if page.previous is None else page.previous.offset
        here = same_place(self._position, end, page.previous)
        if here is None:
            # What another epoch shares with the one before it some members may have, which cannot be told: nobody
            # gets it a second time.
            here = Position(end.epoch, max(page.start, shared))
            self._turn(Turn(here, page.previous, Lost(reason)))
        elif here.offset < page.start:
            held = Position(end.epoch, page.start)
            self._turn(Turn(held, page.previous, self._expired(here.offset, page.start)))
        elif self._has_lost(page):
            self._turn(Turn(here, page.previous, Lost(reason)))
        elif not page.kept and here.offset < end.offset:
            self._turn(Turn(end, page.previous, None))  # between the two the room has nothing
        elif here != self._position:
            self._turn(Turn(here, page.previous, None))
        if max(asked, page.start) <= self._position.offset:  # else we are before what has been read
            self._pass_on(page.kept)
        ahead = self._confirmed.get(end.epoch, 0)
        self._confirmed = {end.epoch: ahead} if ahead > self._position.offset else {}
        if self._position.offset >= end.offset:
            self._behind = None

    def _expired(self, offset: int, start: int) -> Lost:
        return Lost("expired", start - offset if self._store.dense_offsets else None)

    def _pass_on(self, publications: Iterable[Kept]) -> None:
        for kept in publications:
            if kept.offset > self._position.offset:
                self._healed.append(kept)
                self._position = Position(kept.epoch, kept.offset)

    def _gone(self, page: Page, before: Mapping[str, int]) -> Position | None:
        """One that was confirmed, ``before`` the page was read or in the epoch before its own, and that it lacks."""
        for place, confirmed in ((page.position, before), (page.previous, self._confirmed)):
            if place is not None and confirmed.get(place.epoch, 0) > place.offset:
                return Position(place.epoch, confirmed[place.epoch])
        return None

    def _has_lost(self, page: Page) -> bool:
        """Whether something was confirmed in an epoch that has ended, and did not come over into this one."""
        positions = (Position(epoch, offset) for epoch, offset in self._confirmed.items())
        end = page.position
        return any(
            position.epoch != end.epoch and same_place(position, end, page.previous) is None for position in positions
        )

    def _turn(self, turn: Turn) -> None:
        self._healed.append(turn)
        self._position = turn.position
