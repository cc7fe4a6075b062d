"""Who gets what is published in one process, and in which order: for rooms with a history and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import trio

from trioroom._core.history import Kept
from trioroom.backplane.base import Lost

if TYPE_CHECKING:
    from types import TracebackType

    from trioroom.backplane.room_channel import RoomChannel


@attrs.define(eq=False)
class _Subscription:
    """One subscriber's channel; a context manager of its own, for a generator takes 500 bytes in each active room."""

    rooms: MemoryRooms
    room: str
    channel: RoomChannel
    missed: int = 0  # publications that others got and this one did not, not told yet

    async def __aenter__(self) -> None:
        self.rooms._enter(self.room).subscriptions.append(self)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        entered = self.rooms._rooms[self.room]
        entered.subscriptions.remove(self)
        self.rooms._leave(self.room, entered)

    def put_nowait(self, publication: bytes | Kept) -> bool:
        """False when it is full."""
        if self.missed:
            if not self.channel.put_nowait(Lost("overflow", self.missed)):
                return False
            self.missed = 0
        return self.channel.put_nowait(publication)

    async def put(self, publication: bytes | Kept) -> None:
        if self.missed:
            await self.channel.put(Lost("overflow", self.missed))
            self.missed = 0
        await self.channel.put(publication)


@attrs.define(eq=False)
class MemoryRoom:
    """Its subscriptions, and whose turn it is to publish: one at a time, so that all see one order."""

    subscriptions: list[_Subscription] = attrs.field(factory=list)  # mostly one: a second one has to be asked for
    taken: bool = False  # the turn is somebody's
    waiting: trio.lowlevel.ParkingLot | None = None  # those who want it next
    users: int = 0  # subscriptions and publishers

    async def deliver(self, publication: bytes | Kept, when_out: Callable[[], None] = lambda: None) -> None:
        """To those that have room at once, and then to the others as they get some; not always a checkpoint.

        Args:
            when_out: called once there is no way back, so that a cancelled `deliver` is told to those who miss it. One
                that is kept is out from the start; others are when somebody has it, or nobody is there to have it.
        """
        full = [subscription for subscription in self.subscriptions if not subscription.put_nowait(publication)]
        out = isinstance(publication, Kept) or not full or len(full) < len(self.subscriptions)
        if out:
            when_out()
        for number, subscription in enumerate(full):
            try:
                await subscription.put(publication)
            except trio.Cancelled:
                if out:
                    for missing in full[number:]:
                        missing.missed += 1
                raise
            if not out:
                out = True
                when_out()


class MemoryRooms:
    """The rooms that have subscriptions or publishers, by name."""

    def __init__(self) -> None:
        self._rooms: dict[str, MemoryRoom] = {}

    async def take_turn(self, room: str) -> MemoryRoom:
        """The right to publish to ``room`` until `end_turn`, first come, first served; always a checkpoint."""
        await trio.lowlevel.checkpoint()
        entered = self._enter(room)
        if entered.taken:
            entered.waiting = entered.waiting or trio.lowlevel.ParkingLot()
            try:
                await entered.waiting.park()
            except trio.Cancelled:
                self._leave(room, entered)
                raise
        entered.taken = True
        return entered

    def end_turn(self, room: str, entered: MemoryRoom) -> None:
        """Let the next publisher go on."""
        if entered.waiting:
            entered.waiting.unpark()  # it stays taken: whoever comes before that task runs has to wait
        else:
            entered.taken = False
            entered.waiting = None
        self._leave(room, entered)

    def put_nowait(self, room: str, publication: bytes) -> bool:
        """Deliver ``publication`` if nobody has to wait for anybody, which is nearly always; else do nothing."""
        entered = self._rooms.get(room)
        if entered is None:
            return True
        if entered.taken or len(entered.subscriptions) != 1:
            return False
        return entered.subscriptions[0].put_nowait(publication)

    def subscribe(self, room: str, channel: RoomChannel) -> _Subscription:
        """Put what is published to ``room`` into ``channel`` while the context is open."""
        return _Subscription(self, room, channel)

    def _enter(self, room: str) -> MemoryRoom:
        entered = self._rooms.get(room)
        if entered is None:
            entered = self._rooms[room] = MemoryRoom()
        entered.users += 1
        return entered

    def _leave(self, room: str, left: MemoryRoom) -> None:
        # Publishers who still wait for their turn keep it: else who subscribes meanwhile would miss theirs.
        left.users -= 1
        if not left.users:
            del self._rooms[room]
