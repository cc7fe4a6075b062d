"""`Room`, the class users write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs
import trio

from trioroom._core.history import History, Position
from trioroom._core.info import decode_info
from trioroom._core.overflow import Overflow
from trioroom._core.presence import Presence
from trioroom.member import Member

if TYPE_CHECKING:
    from trioroom._core.statistics import RoomStatistics
    from trioroom._net.active_room import ActiveRoom
    from trioroom._wire.message import Data, Message
    from trioroom.backplane.base import Backplane


MAX_PAGE = 1_000
"""Messages, or members, of one page."""


@attrs.frozen
class KeptMessage:
    """A message in a room's history."""

    offset: int
    """Its place."""
    data: Data
    """What was published."""
    sender: str | None
    """The id of the member who caused it, where there was one."""


@attrs.frozen
class HistoryPage:
    """A part of a room's history."""

    messages: tuple[KeptMessage, ...]
    """Oldest first."""
    position: Position
    """Where the history ends now, in its present epoch, which the offsets of the messages belong to."""
    more: bool
    """There are others, older ones or after a position newer ones."""


@attrs.frozen
class PresentUser:
    """Who is in a room."""

    user: str
    """`Member.user` of its connections."""
    info: object
    """`Member.info` of one of them."""


@attrs.frozen
class PresencePage:
    """A part of the list of who is in a room, in the order of user ids."""

    members: tuple[PresentUser, ...]
    """For the next page, pass the ``user`` of the last one as ``after``."""
    count: int
    """Users in the room, on all servers."""
    version: int
    """How many changes of the list this server's members have been told."""
    more: bool
    """Whether there are some behind these."""


class Members:
    """The members of a room on this node. A live view: it changes as they come and go."""

    __slots__ = ("_active",)

    def __init__(self, active: ActiveRoom) -> None:
        self._active = active

    def __len__(self) -> int:
        return self._active.member_count

    def __iter__(self) -> Iterator[Member]:
        return iter(self._active.snapshot())

    def __contains__(self, member: object) -> bool:
        return isinstance(member, Member) and member._present and member.room._active is self._active


class Room:
    """A named fan-out group and what happens in it. Subclass it and override the hooks you need.

    One object per active room name per node, from before its first local member until after its
    last. Messages of one member are handled one after another, those of several members
    concurrently. A hook that raises is logged and ends that member's connection with 1011, or with 1013
    when it is `trioroom.BackplaneUnavailable` (v1 requests get an error instead and the connection stays).
    """

    overflow: Overflow = Overflow.DISCONNECT
    """What happens when more waits for a member than may."""
    max_outbox_messages: int | None = None
    """How many messages of this room may wait for one member; None is the setting of that name."""
    max_outbox_bytes: int | None = None
    """And their bytes; None is the setting of that name."""
    history: History | None = None
    """What the room keeps, for members who were away, and for `read_history`; None keeps nothing."""
    max_members: int | None = None
    """Members on one server; None is the setting ``max_members_per_room``."""
    presence: bool | Presence = False
    """Whether the room knows who is in it, on all servers, and tells its v1 members; True is `Presence()`."""
    name: str
    """The whole name, such as ``chat/lobby``."""
    params: dict[str, str]
    """The route's parameters, such as ``{"name": "lobby"}``."""
    nursery: trio.Nursery
    """The room's own; it is cancelled after the last local member left."""
    members: Members
    """The members on this node, including one whose ``on_join`` is running."""
    _active: ActiveRoom

    async def authorize(self, member: Member) -> None:
        """Raise `trioroom.JoinRefused` to keep ``member`` out.

        By its `Member.identity`, `Member.request` or `Member.token`, say. Others come in meanwhile, and it has no
        deadline but that of a lost connection, which cancels it. Any other error is a failure and ends the connection,
        `trioroom.RequestRefused` too, which is for messages and calls.
        """

    async def on_open(self) -> None:
        """Before the first local member joins; who comes meanwhile waits.

        If it raises, these are turned away, and the next one who comes finds another room object that tries again.
        """

    async def on_join(self, member: Member) -> object:
        """A member came. What this returns, unless None, reaches it before any message.

        A v1 joiner gets it as ``state``, a plain one as its first message. What is published until it returns is held
        for the member, and follows. It may still raise `trioroom.JoinRefused`. Cancelled when the connection is lost;
        ``on_leave`` runs whatever becomes of it.
        """
        return None

    async def on_message(self, member: Member, message: Message) -> None:
        """A member sent a message. The default publishes it to the other members.

        While it awaits, nothing more of this member is read. Cancelled when the connection is lost.

        Raise `trioroom.RequestRefused` if you do not want it: a v1 member gets that for an answer, a plain one, which
        can be given none, is closed with 1008, or with 1013 if it may try again.
        """
        await self.publish(message.data, exclude=member, publication_id=message.publication_id)

    async def on_call(self, member: Member, message: Message) -> object:
        """A v1 member asked; what this returns is the answer, a JSON value or bytes.

        A task of its own, so the member's messages and other calls go on meanwhile. Cancelled when the caller gives up,
        its timeout is over, or the member leaves. In a room that does not override it calls are refused as
        ``unsupported``.

        Raise `trioroom.RequestRefused` to answer with an error, of a ``code`` that is yours to choose.
        """
        raise NotImplementedError(f"room {self.name!r} answers no calls; override on_call")

    async def on_leave(self, member: Member, reason: str) -> None:
        """Exactly once for every ``on_join`` that began, however the member went.

        It is out of the room by then, and its tasks have ended; to send to it does nothing. ``reason`` is for people.
        Shielded from cancellation for ``Settings.leave_timeout``, and then cut off.
        """

    async def on_close(self) -> None:
        """After the last local member left; not for a room that could not reach the broker, whose ``on_open`` never
        began. Shielded for ``Settings.leave_timeout``, and then cut off.
        """

    def statistics(self) -> RoomStatistics:
        """How many members the room has on this node, and where its messages to them went."""
        return self._active.statistics()

    async def read_history(
        self, limit: int = 50, *, before: Position | None = None, after: Position | None = None
    ) -> HistoryPage:
        """Messages that the room keeps, oldest first: the latest, or those before or after a position.

        Args:
            limit: how many at most, from 1 to 1,000; fewer if they are large, 256 KiB in all.
        Raises:
            ValueError: ``limit`` is none of these; or ``before`` and ``after`` are given both.
            RuntimeError: the room keeps no history.
            PositionLost: the position is not known, or what follows ``after`` is not held any more.
            BackplaneUnavailable: the broker cannot be reached.
        """
        if self._active.history is None:
            raise RuntimeError(f"room {self.name!r} keeps no history; say how much in {type(self).__name__}.history")
        if not 1 <= limit <= MAX_PAGE:
            raise ValueError(f"limit={limit} is not from 1 to {MAX_PAGE}; page through more")
        if before is not None and after is not None:
            raise ValueError("before and after exclude each other; give one of them")
        return await self._active.history.page(limit, before, after)

    def who(self, limit: int = 100, after: str | None = None) -> PresencePage:
        """Who is in the room, on all servers, as its members have been told.

        Args:
            limit: how many users at most; a page has fewer where they show much.
            after: the user behind which the page begins.
        Raises:
            RuntimeError: the room's ``presence`` is False.
            ValueError: ``limit`` is not positive.
        """
        presence = self._active.presence
        if presence is None:
            raise RuntimeError(f"room {self.name!r} does not know who is in it; set presence = True in its class")
        if limit < 1:
            raise ValueError(f"limit={limit} must be positive")
        page = presence.page(limit, after)
        users = tuple(PresentUser(user, decode_info(info)) for user, info in page.users)
        return PresencePage(users, page.count, page.version, page.more)

    async def publish(
        self,
        data: Data,
        *,
        exclude: Member | None = None,
        sender: Member | None = None,
        key: str | None = None,
        publication_id: str | None = None,
    ) -> None:
        """Send ``data`` to every member on every node, except ``exclude``.

        v1 members see the id of ``sender`` (or else of ``exclude``) as ``from``.

        Awaits while the room's fan-out on this node is behind: that is the backpressure. Cancelled, the message
        may or may not have gone out.

        Args:
            key: what this is the latest of; asked for where ``overflow`` is `Overflow.LATEST`.
            publication_id: 1 to 128 characters, best at random. A second publication with it does nothing, for as long
                as the backplane remembers (300 s): so one that may have gone out or not can be tried again.
        Raises:
            TypeError: ``data`` is no text, bytes or JSON value.
            ValueError: ``publication_id`` is too short or too long.
            BackplaneUnavailable: the broker cannot be reached, or the room has been behind for ``publish_timeout``.
        """
        await self._active.publish(data, exclude=exclude, sender=sender, key=key, publication_id=publication_id)


def presence_of(room_class: type[Room]) -> Presence | None:
    """How rooms of this class show who is in them; None if they do not."""
    presence = room_class.presence
    if isinstance(presence, Presence):
        return presence
    return Presence() if presence else None


def check_abilities(room_class: type[Room], backplane: Backplane) -> None:
    """What a class wants of the backplane, checked before a server serves it.

    Raises:
        ValueError: the backplane cannot do that.
    """
    if room_class.history is not None and backplane.history is None:
        raise ValueError(
            f"{room_class.__name__}.history needs a backplane that keeps publications, which "
            f"{type(backplane).__name__} does not; use another one, or set history = None"
        )
    if presence_of(room_class) is not None and backplane.presence is None:
        raise ValueError(
            f"{room_class.__name__}.presence needs a backplane that knows who is in a room, and "
            f"{type(backplane).__name__} does not; use another one, or set presence = False"
        )


def check_limits(room_class: type[Room]) -> None:
    """What a class says of its history and its members, checked once, before the first of them comes.

    Raises:
        TypeError: it is of the wrong type.
        ValueError: a number is not positive.
    """
    overflow: object = room_class.overflow  # the type checker trusts who writes a room; we do not
    if not isinstance(overflow, Overflow):
        known = ", ".join(str(policy) for policy in Overflow)
        raise TypeError(f"{room_class.__name__}.overflow={overflow!r} is none of {known}")
    history: object = room_class.history
    if not (history is None or isinstance(history, History)):
        raise TypeError(f"{room_class.__name__}.history={history!r} must be a trioroom.History, or None")
    presence: object = room_class.presence
    if not isinstance(presence, bool | Presence):
        raise TypeError(f"{room_class.__name__}.presence={presence!r} must be True, False or a trioroom.Presence")
    for name in ("max_outbox_messages", "max_outbox_bytes", "max_members"):
        value = getattr(room_class, name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{room_class.__name__}.{name}={value!r} must be a whole number, or None for the setting")
        if value < 1:
            raise ValueError(f"{room_class.__name__}.{name}={value} must be positive, or None for the setting")
