"""A room that has members on this node: its task, its subscription, and who is in it.

One task per active room, in the hub's nursery. It opens the subscription and the room's own nursery
before the first member joins, then it is the fan-out, and closes them after the last has left. While
it ends, its name is still taken: whoever wants to join waits for `closed` and then opens the room anew.
Thousands of small rooms have one each: what few of them use is made when they do.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, TypeVarTuple

import trio

from trioroom._core.causes import first_of
from trioroom._core.statistics import RoomStatistics, deliveries_of
from trioroom._net.failures import UNAVAILABLE, is_unavailable
from trioroom._net.fanout import FanOut
from trioroom._net.lazy_event import LazyEvent
from trioroom._net.lazy_nursery import LazyNursery
from trioroom._net.paced_publisher import PacedPublisher
from trioroom._net.room_history import Place, RoomHistory
from trioroom._net.room_presence import RoomPresence
from trioroom._net.timing import timed
from trioroom._wire.publication import check_publication_id, encode_publication
from trioroom.backplane.room_channel import RoomChannel
from trioroom.closecodes import CloseCode
from trioroom.errors import BackplaneUnavailable, JoinRefused
from trioroom.room import Members, Room, presence_of

if TYPE_CHECKING:
    from trioroom._core.histogram import Histogram
    from trioroom._core.history import Position
    from trioroom._core.overflow import Feed, Tally
    from trioroom._net.limits import Limits
    from trioroom._wire.encoding import Encoding
    from trioroom._wire.message import Data
    from trioroom.backplane.base import Backplane
    from trioroom.member import Member

log = logging.getLogger("trioroom.room")
Args = TypeVarTuple("Args")
_NOTHING = nullcontext()  # to open; all can share it


class RoomFailed(Exception):
    """``on_open`` raised or a task of the room crashed; it has been logged."""


class RoomFull(JoinRefused):
    """As many members as the room may have on this node are in it."""

    def __init__(self, name: str, max_members: int) -> None:
        reason = f"room {name!r} is full with {max_members} members; try again later"
        super().__init__(reason, CloseCode.TRY_AGAIN_LATER)


class ActiveRoom:
    """Run by a task of the hub's nursery; members hold a place in it from `take_place` to `leave`."""

    __slots__ = (
        "_backplane", "_begun", "_empty", "_failure", "_limits", "_members", "_opened", "_places", "_publisher",
        "_scope", "channel", "closed", "ending", "history", "presence", "room",
    )  # fmt: skip

    def __init__(self, room: Room, params: dict[str, str], name: str, backplane: Backplane, limits: Limits) -> None:
        self.room = room
        room.name, room.params, room.members, room._active = name, params, Members(self), self
        self.closed = LazyEvent()
        self.ending = False
        self._backplane = backplane
        self._limits = limits
        settings = limits.settings
        self.channel = RoomChannel(settings.room_channel_size, settings.room_channel_bytes, limits.budget)
        self.history = self._make_history()
        self._members = FanOut(room, limits.meters, self.history)
        outlet = self.history or backplane
        self._publisher = PacedPublisher(outlet, name, self.channel, settings.publish_timeout, limits.meters)
        self.presence = self._make_presence()
        self._places = 0  # members, and those who wait to be
        self._begun = False  # on_open has
        self._opened = LazyEvent()
        self._empty = LazyEvent()
        self._scope: trio.CancelScope | None = None  # of the room's nursery, from when on_open has returned
        self._failure: Exception | None = None  # for who comes when it has; None is RoomFailed

    def _make_history(self) -> RoomHistory | None:
        store = self._backplane.history
        if self.room.history is None or store is None:  # the server has checked that it is not for want of a store
            return None
        return RoomHistory(store, self.room, self._limits, self.channel)

    def _make_presence(self) -> RoomPresence | None:
        settings, store = presence_of(type(self.room)), self._backplane.presence
        if settings is None or store is None:  # the server has checked that it is not for want of a store
            return None
        return RoomPresence(settings, store, self.room.name, self._members, self._end_if_deserted)

    @property
    def _timings(self) -> dict[str, Histogram]:
        return self._limits.meters.timings.hooks

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
        return RoomStatistics(len(self._members), self.room.overflow, len(self.channel), deliveries_of(self.tally))

    def snapshot(self) -> list[Member]:
        """The members of this moment."""
        return list(self._members)

    # -- the room's own task ---------------------------------------------------------------

    async def run(self, ended: Callable[[ActiveRoom], None]) -> None:
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
            try:
                await self._close()
            finally:
                ended(self)
                self.closed.set()

    def _failed(self, error: ExceptionGroup[Exception]) -> None:
        code, reason = CloseCode.INTERNAL_ERROR, "the room failed; the server's log tells more"
        name = self.room.name
        fields: dict[str, object] = {"room": name, "code": code}
        if is_unavailable(error):
            code, reason = CloseCode.TRY_AGAIN_LATER, UNAVAILABLE
            fields["code"] = code
            self._failure = BackplaneUnavailable(str(first_of(error)))
            log.debug("room %s failed; its members are closed with 1013: %s", name, self._failure, extra=fields)
        else:
            log.error("room %s failed; its members are closed with 1011", name, exc_info=error, extra=fields)
        for member in self._members:
            member._connection.close(code, reason)

    async def _live(self) -> None:
        try:
            async with self._subscribe():
                source = self.channel if self.history is None else await self.history.begin()
                async with self._open_presence(), trio.open_nursery() as nursery:
                    self.room.nursery = nursery
                    self._begun = True
                    if self.presence is not None:
                        nursery.start_soon(self.presence.run)
                    if type(self.room).on_open is Room.on_open:
                        self._open()
                    else:  # beside the fan-out, for it may publish more than waits for one that does not run
                        nursery.start_soon(self._call_on_open)
                    await self._members.pump(source, self._publisher.move_up)
        finally:
            if self.history is not None:
                self.history.close()
            self.channel.close()
            self._publisher.move_up()

    def _subscribe(self) -> AbstractAsyncContextManager[None]:
        store = self._backplane if self.history is None else self.history.store
        return store.subscribe(self.room.name, self.channel)

    async def _call_on_open(self) -> None:
        await timed(self._timings["on_open"], self.room.on_open)
        self._open()

    def _open(self) -> None:
        self._scope = self.room.nursery.cancel_scope
        self._opened.set()
        self._end_if_deserted()

    def _open_presence(self) -> AbstractAsyncContextManager[None]:
        return _NOTHING if self.presence is None else self.presence.open()

    async def _close(self) -> None:
        # Cancelled or failed, there may be members still: they leave under deadlines of their own.
        timeout = self._limits.settings.close_timeout + 2 * self._limits.settings.leave_timeout
        with trio.move_on_after(timeout, shield=True):
            await self._empty.wait()
        if self._begun and type(self.room).on_close is not Room.on_close:
            await self._call_shielded("on_close", self.room.on_close)

    async def _call_shielded(self, hook: str, fn: Callable[[*Args], Awaitable[None]], *args: *Args) -> bool:
        """Whether ``fn`` is not at fault; that it raised, or took too long, is logged."""
        timeout = self._limits.settings.leave_timeout
        name, failed = self.room.name, False
        fields = {"room": name, "hook": hook}
        with trio.move_on_after(timeout, shield=True) as scope:
            try:
                await timed(self._timings[hook], fn, *args)
            except* Exception as error:  # one that is cut off may fail over it, in a group with Cancelled
                if is_unavailable(error):
                    log.debug("room %s: %s failed: %s", name, hook, first_of(error), extra=fields)
                else:
                    failed = True
                    log.error("room %s: %s failed", name, hook, exc_info=error, extra=fields)
        if scope.cancelled_caught:
            log.error("room %s: %s cut off after leave_timeout=%g s", name, hook, timeout, extra=fields)
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
            if self._scope is not None:
                self._scope.cancel()

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
                raise self._refusal()
            if type(self.room).authorize is not Room.authorize:  # what does nothing is not called at all
                await timed(self._timings["authorize"], self.room.authorize, member)
            if position is not None and self.history is not None:
                await self.history.reach_position(position)
            if self.ending:  # it failed meanwhile
                raise self._refusal()
            if len(self._members) >= (limit := self._max_members()):
                raise RoomFull(self.room.name, limit)
            began = True
            place = self._members.begin_join(member, position)
            state = None
            if type(self.room).on_join is not Room.on_join:
                state = await timed(self._timings["on_join"], self.room.on_join, member)
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

    def _refusal(self) -> Exception:
        return self._failure or RoomFailed(self.room.name)

    def _max_members(self) -> int:
        own = self.room.max_members
        return self._limits.settings.max_members_per_room if own is None else own

    async def leave(self, member: Member, reason: str) -> bool:
        """Take ``member`` out and run ``on_leave``, shielded; False when someone else has begun to."""
        if not self._members.remove(member):
            return False
        if self.presence is not None:
            self.presence.leave(member)
        try:
            if member._tasks is not None:
                with trio.move_on_after(self._limits.settings.leave_timeout, shield=True):
                    await member._tasks.aclose()
            if type(self.room).on_leave is not Room.on_leave and not await self._call_shielded(
                "on_leave", self.room.on_leave, member, reason
            ):
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

    def publish(
        self,
        data: Data,
        *,
        exclude: Member | None,
        sender: Member | None,
        key: str | None,
        publication_id: str | None = None,
    ) -> Awaitable[Position | None]:
        """See `Room.publish`; gives the place in the history, if there is one."""
        # Not async itself: thousands of publishers may be waiting at once, with a coroutine more each.
        author = sender or exclude
        payload = encode_publication(data, author.id if author else None, exclude.id if exclude else None, key)
        check_publication_id(publication_id)
        return self._publisher.publish(payload, publication_id)


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
        member._connection.hook_failed(getattr(fn, "__qualname__", repr(fn)), error, member.room.name)
