"""A room that has members on this node: its task, its subscription, and who is in it.

One task per active room, in the hub's nursery. It opens the subscription and the room's own nursery
before the first member joins and closes them after the last has left. While it ends, its name is
still taken: whoever wants to join waits for `closed` and then opens the room anew.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVarTuple

import trio

from trioroom._core.causes import first_of
from trioroom._core.statistics import RoomStatistics, deliveries_of
from trioroom._net.connection import UNAVAILABLE, is_unavailable
from trioroom._net.fanout import FanOut, Source
from trioroom._net.lazy_nursery import LazyNursery
from trioroom._net.paced_publisher import PacedPublisher
from trioroom._net.room_history import Place, RoomHistory
from trioroom._net.room_presence import RoomPresence
from trioroom._wire.publication import check_publication_id, encode_publication
from trioroom.backplane.room_channel import RoomChannel
from trioroom.closecodes import CloseCode
from trioroom.errors import BackplaneUnavailable, JoinRefused
from trioroom.room import Members, Room, presence_of

if TYPE_CHECKING:
    from trioroom._core.history import Position
    from trioroom._core.overflow import Feed, Tally
    from trioroom._net.limits import Limits
    from trioroom._wire.encoding import Encoding
    from trioroom._wire.message import Data
    from trioroom.backplane.base import Backplane
    from trioroom.member import Member

log = logging.getLogger("trioroom.room")
Args = TypeVarTuple("Args")


class RoomFailed(Exception):
    """``on_open`` raised or a task of the room crashed; it has been logged."""


class RoomFull(JoinRefused):
    """As many members as the room may have on this node are in it."""

    def __init__(self, name: str, max_members: int) -> None:
        reason = f"room {name!r} is full with {max_members} members; try again later"
        super().__init__(reason, CloseCode.TRY_AGAIN_LATER)


class ActiveRoom:
    """Run by a task of the hub's nursery; members hold a place in it from `take_place` to `leave`."""

    def __init__(self, room: Room, params: dict[str, str], name: str, backplane: Backplane, limits: Limits) -> None:
        self.room = room
        room.name, room.params, room.members, room._active = name, params, Members(self), self
        self.closed = trio.Event()
        self.ending = False
        self._backplane = backplane
        self._limits = limits
        self._settings = settings = limits.settings
        self._channel = RoomChannel(settings.room_channel_size, settings.room_channel_bytes, limits.budget)
        self.history = self._make_history()
        self._members = FanOut(room, self.history)
        self._publisher = PacedPublisher(self.history or backplane, name, self._channel, settings.publish_timeout)
        self.presence = self._make_presence()
        self._places = 0  # members, and those who wait to be
        self._opened = trio.Event()
        self._empty = trio.Event()
        self._failure: Exception = RoomFailed(name)  # for who comes when it has

    def _make_history(self) -> RoomHistory | None:
        store = self._backplane.history
        if self.room.history is None or store is None:  # the server has checked that it is not for want of a store
            return None
        return RoomHistory(store, self.room, self._limits, self._channel)

    def _make_presence(self) -> RoomPresence | None:
        settings, store = presence_of(type(self.room)), self._backplane.presence
        if settings is None or store is None:  # the server has checked that it is not for want of a store
            return None
        return RoomPresence(settings, store, self.room.name, self._members, self._end_if_deserted)

    @property
    def member_count(self) -> int:
        """Members on this node, joining ones included."""
        return len(self._members)

    def feed(self, encoding: Encoding) -> Feed:
        """The rules for what waits of this room for a peer that is spoken to like this."""
        return self._members.feed(encoding)

    @property
    def tally(self) -> Tally:
        """Where its messages went."""
        return self._members.tally

    def statistics(self) -> RoomStatistics:
        """The room at this moment."""
        return RoomStatistics(len(self._members), self.room.overflow, len(self._channel), deliveries_of(self.tally))

    def snapshot(self) -> list[Member]:
        """The members of this moment."""
        return list(self._members)

    # -- the room's own task ---------------------------------------------------------------

    async def run(self) -> None:
        """The life of the room; never raises, for the hub's other rooms live in the same nursery."""
        try:
            await self._live()
        except* Exception as error:  # a hook or a task of the room: the one boundary for both
            self._failed(error)
        finally:
            self.ending = True
            self._opened.set()
            if not self._places:  # it was here for the grace of users that have left
                self._empty.set()
            await self._close()

    def _failed(self, error: ExceptionGroup[Exception]) -> None:
        code, reason = CloseCode.INTERNAL_ERROR, "the room failed; the server's log tells more"
        if is_unavailable(error):
            code, reason = CloseCode.TRY_AGAIN_LATER, UNAVAILABLE
            self._failure = BackplaneUnavailable(str(first_of(error)))
            log.debug("room %s failed; its members are closed with 1013: %s", self.room.name, self._failure)
        else:
            log.error("room %s failed; its members are closed with 1011", self.room.name, exc_info=error)
        for member in self._members:
            member._connection.close(code, reason)

    async def _live(self) -> None:
        try:
            async with (
                self._open_source() as source,
                self._open_presence(),
                trio.open_nursery() as self.room.nursery,
            ):
                # First, for on_open may publish more than waits for a fan-out that does not run.
                self.room.nursery.start_soon(self._members.pump, source, self._publisher.move_up)
                if self.presence is not None:
                    self.room.nursery.start_soon(self.presence.run)
                await self.room.on_open()
                self._opened.set()
                await self._empty.wait()
                self.room.nursery.cancel_scope.cancel()
        finally:
            self._channel.close()
            self._publisher.move_up()

    @asynccontextmanager
    async def _open_source(self) -> AsyncIterator[Source]:
        """What the fan-out reads, subscribed."""
        if self.history is None:
            async with self._backplane.subscribe(self.room.name, self._channel):
                yield self._channel
            return
        try:
            async with self.history.store.subscribe(self.room.name, self._channel):
                yield await self.history.begin()
        finally:
            self.history.close()

    def _open_presence(self) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self.presence is None else self.presence.open()

    async def _close(self) -> None:
        # Cancelled or failed, there may be members still: they leave under deadlines of their own.
        timeout = self._settings.close_timeout + 2 * self._settings.leave_timeout
        with trio.move_on_after(timeout, shield=True):
            await self._empty.wait()
        await self._call_shielded("on_close", self.room.on_close)

    async def _call_shielded(self, hook: str, fn: Callable[[*Args], Awaitable[None]], *args: *Args) -> bool:
        """Whether ``fn`` is not at fault; that it raised, or took too long, is logged."""
        timeout = self._settings.leave_timeout
        failed = False
        with trio.move_on_after(timeout, shield=True) as scope:
            try:
                await fn(*args)
            except* Exception as error:  # one that is cut off may fail over it, in a group with Cancelled
                if is_unavailable(error):
                    log.debug("room %s: %s failed: %s", self.room.name, hook, first_of(error))
                else:
                    failed = True
                    log.error("room %s: %s failed", self.room.name, hook, exc_info=error)
        if scope.cancelled_caught:
            log.error("room %s: %s cut off after leave_timeout=%g s", self.room.name, hook, timeout)
        return not failed

    # -- members -----------------------------------------------------------------------------

    def take_place(self) -> None:
        """Keep the room alive for one who will `join` and then `leave`, or give the place back."""
        self._places += 1

    def release_place(self) -> None:
        """The last one out ends the room; with presence, when its user's grace is over."""
        self._places -= 1
        if self.presence is None or not self.presence.lingers:
            self._end_if_deserted()

    def _end_if_deserted(self) -> None:
        """At once, so that nobody joins a room that is going."""
        if not self._places:
            self.ending = True
            self._empty.set()

    async def join(
        self, member: Member, welcome: Callable[[object, Place], None], position: Position | None = None
    ) -> None:
        """Make ``member`` one of the room; ``welcome`` sends it the state, before any message.

        What it missed since ``position`` comes next, if all of it can be had. The caller holds a place, which `leave`
        gives back; when this raises, it has been given back.

        Raises:
            JoinRefused: ``authorize`` (or ``on_join``) refused, or the room is full.
            BackplaneUnavailable: the room could not be opened for want of the broker, or ``on_join`` met that.
            RoomFailed: the room could not be opened.
        """
        began = False
        try:
            if not self._opened.is_set():  # it mostly is, and a checkpoint for each join would show
                await self._opened.wait()
            if self.ending:
                raise self._failure
            await self.room.authorize(member)
            if position is not None and self.history is not None:
                await self.history.reach_position(position)
            if self.ending:  # it failed meanwhile
                raise self._failure
            if len(self._members) >= (limit := self._max_members()):
                raise RoomFull(self.room.name, limit)
            began = True
            place = self._members.begin_join(member, position)
            state = await self.room.on_join(member)
            if member._put_out is not None:
                raise JoinRefused(member._put_out, CloseCode.KICKED)
            welcome(state, place)
            self._members.finish_join(member)
            if self.presence is not None:
                self.presence.join(member)
        except BaseException as exc:
            if began:
                await self.leave(member, _reason(member, exc))
            else:
                self.release_place()
            raise

    def _max_members(self) -> int:
        own = self.room.max_members
        return self._settings.max_members_per_room if own is None else own

    async def leave(self, member: Member, reason: str) -> bool:
        """Take ``member`` out and run ``on_leave``, shielded; False when someone else has begun to."""
        if not self._members.remove(member):
            return False
        if self.presence is not None:
            self.presence.leave(member)
        try:
            if member._tasks is not None:
                with trio.move_on_after(self._settings.leave_timeout, shield=True):
                    await member._tasks.aclose()
            if not await self._call_shielded("on_leave", self.room.on_leave, member, reason):
                member._connection.close(CloseCode.INTERNAL_ERROR, "on_leave failed; the server's log tells more")
        finally:
            self.release_place()
        return True

    def start_member_task(self, member: Member, fn: Callable[[*Args], Awaitable[object]], *args: *Args) -> None:
        """Run ``fn`` until it ends or ``member`` leaves; see `Member.start_soon`."""
        if not member._present:
            raise trio.ClosedResourceError(f"{member!r} has left; start no tasks for it")
        if member._tasks is None:
            member._tasks = LazyNursery(member._connection.nursery)
        member._tasks.start_soon(_run_member_task, member, fn, *args)

    async def publish(
        self,
        data: Data,
        *,
        exclude: Member | None,
        sender: Member | None,
        key: str | None,
        publication_id: str | None = None,
    ) -> None:
        """See `Room.publish`."""
        author = sender or exclude
        payload = encode_publication(data, author.id if author else None, exclude.id if exclude else None, key)
        check_publication_id(publication_id)
        await self._publisher.publish(payload, publication_id)


def _reason(member: Member, exc: BaseException) -> str:
    """Why a join that had begun came to nothing."""
    if isinstance(exc, Exception):
        return str(exc) or type(exc).__name__
    closing = member._connection.closing
    return closing.reason if closing is not None else "the server stops"


async def _run_member_task(member: Member, fn: Callable[[*Args], Awaitable[object]], *args: *Args) -> None:
    try:
        await fn(*args)
    except* Exception as error:  # one that is cancelled may fail over it, in a group with Cancelled
        member._connection.hook_failed(getattr(fn, "__qualname__", repr(fn)), error)
