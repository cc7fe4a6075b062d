"""`Room`, the class users write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import trio

from trioroom.member import Member

if TYPE_CHECKING:
    from trioroom._net.active_room import ActiveRoom
    from trioroom._wire.message import Data, Message


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
        """Raise `trioroom.JoinRefused` to keep ``member`` out."""

    async def on_open(self) -> None:
        """Before the first local member joins."""

    async def on_join(self, member: Member) -> object:
        """A member came. What this returns, unless None, reaches it before any message.

        A v1 joiner gets it as ``state``, a plain one as its first message.
        """
        return None

    async def on_message(self, member: Member, message: Message) -> None:
        """A member sent a message. The default publishes it to the other members."""
        await self.publish(message.data, exclude=member)

    async def on_call(self, member: Member, message: Message) -> object:
        """A v1 member asked; what this returns is the answer. Cancelled when the caller gives up."""
        raise NotImplementedError(f"room {self.name!r} answers no calls; override on_call")

    async def on_leave(self, member: Member, reason: str) -> None:
        """Exactly once for every ``on_join`` that began, however the member went; shielded, with a deadline."""

    async def on_close(self) -> None:
        """After the last local member left."""

    async def publish(self, data: Data, *, exclude: Member | None = None, sender: Member | None = None) -> None:
        """Send ``data`` to every member on every node, except ``exclude``.

        v1 members see the id of ``sender`` (or else of ``exclude``) as ``from``.

        Awaits while the room's fan-out is behind: that is the backpressure. Cancelled, the message
        may or may not have gone out.

        Raises:
            TypeError: ``data`` is no text, bytes or JSON value.
            BackplaneUnavailable: the broker cannot be reached.
        """
        await self._active.publish(data, exclude=exclude, sender=sender)
