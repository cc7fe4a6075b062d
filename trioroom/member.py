"""A member: one connection's place in one room."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVarTuple

import trio

from trioroom._core.batch import single
from trioroom._core.info import NOTHING, check_user, decode_info, encode_info

if TYPE_CHECKING:
    from trioroom._core.batch import Batch
    from trioroom._core.outbox import Outbox
    from trioroom._core.overflow import Feed
    from trioroom._core.statistics import Lag
    from trioroom._net.active_room import ActiveRoom
    from trioroom._net.connection import Connection
    from trioroom._net.lazy_nursery import LazyNursery
    from trioroom._wire.http import Request
    from trioroom._wire.message import Data
    from trioroom.identity import Identity
    from trioroom.room import Room

Args = TypeVarTuple("Args")


class Member:
    """What a hook gets. It is over when ``on_leave`` has run; sending to it then does nothing."""

    __slots__ = (
        *("_active", "_connection", "_feed", "_held", "_info", "_listed", "_present", "_put_out", "_tasks", "_user"),
        "token",
    )

    def __init__(self, active: ActiveRoom, connection: Connection, token: str | None) -> None:
        self._active = active
        self._connection = connection
        self._feed: Feed = active.feed(connection.encoding)
        self._held: Outbox | None = None  # while on_join runs: the state that it returns goes first
        self._present = False  # in the room: from before on_join until before on_leave
        self._put_out: str | None = None  # why, when `leave` was called while on_join ran
        self._tasks: LazyNursery | None = None
        identity = connection.identity
        self._user = None if identity is None else identity.user
        self._info = NOTHING if identity is None else identity._info
        self._listed: str | None = None  # the user that it is listed as, while it is
        self.token = token
        """What the peer sent in ``auth``. Unless the app authenticates, nobody has checked it, and ``authorize``
        decides what it is worth."""

    def __repr__(self) -> str:
        return f"<Member {self.id} of {self.room.name!r}>"

    @property
    def id(self) -> str:
        """Unique among all members of the room, on all nodes; ``from`` in the messages of v1."""
        return self._connection.id

    @property
    def user(self) -> str:
        """Who it is to the room's presence, 1 to 128 characters.

        The user of its `identity`, else its `id`, until ``authorize`` or ``on_join`` set another.

        Connections of one user, on any servers, are listed as one. Set later, it changes nothing of the list.
        """
        return self.id if self._user is None else self._user

    @user.setter
    def user(self, user: str) -> None:
        self._user = check_user(user)

    @property
    def info(self) -> object:
        """What the list shows of the user, a JSON value of at most 1,024 bytes.

        That of its `identity`, else None, until it is set as `user` is.
        """
        return decode_info(self._info)

    @info.setter
    def info(self, info: object) -> None:
        self._info = encode_info(info)

    @property
    def identity(self) -> Identity | None:
        """Who ``App(authenticate=...)`` says that it is, by the latest credentials; None if it is anonymous, or nobody
        asks."""
        return self._connection.identity

    @property
    def room(self) -> Room:
        """The room this is a place in."""
        return self._active.room

    @property
    def request(self) -> Request:
        """The opening HTTP request, with its path, query and headers but for ``Sec-WebSocket-Key``, and for what a
        trusted proxy has put into ``Settings.forwarded_header``: that is in `address`.

        Kept until the connection ends.
        """
        return self._connection.request

    @property
    def address(self) -> str | None:
        """The peer's IP address, as far as trusted proxies tell it; None for one that came without a network.

        It is looked up when it is first asked for, and then kept. So ask in ``on_join`` if ``on_leave`` needs it: a
        connection that is lost may not tell it any more, which is None too.
        """
        return self._connection.address

    @property
    def lag(self) -> Lag:
        """How far this member's connection is behind, with what waits for it in this process of all its rooms."""
        return self._connection.lag() if self._held is None else self._held.lag(trio.current_time())

    def send(self, data: Data, *, key: str | None = None) -> None:
        """Send ``data`` to this member alone.

        Never blocks: what the kernel does not take now waits in the connection's outbox, and when that is full
        the room's ``overflow`` says what happens.

        Args:
            key: what this is the latest of, in a room whose ``overflow`` is `Overflow.LATEST`.
        Raises:
            TypeError: ``data`` is no text, bytes or JSON value.
        """
        if not self._present:
            return
        frame = self._connection.encoding.message(self._active.room.name, data, None)
        self._feed.tally.offered += 1
        self._deliver(single(self._feed, frame, None if key is None else (key,)))

    def start_soon(self, fn: Callable[[*Args], Awaitable[object]], *args: *Args) -> None:
        """Run ``fn(*args)`` as a task of this membership, cancelled when the member leaves.

        If it raises, that is logged and the connection closed with 1011.

        Raises:
            trio.ClosedResourceError: the member has left, or has not begun to join.
        """
        self._active.start_member_task(self, fn, *args)

    def leave(self, reason: str = "") -> None:
        """Put the member out. A plain connection closes with 1000; a v1 one gets ``kicked`` and stays.

        Called while ``on_join`` runs, it refuses the join when that returns.
        """
        if self._held is not None:
            self._put_out = reason
        elif self._present:
            self._connection.put_out(self, reason)

    def _deliver(self, batch: Batch) -> None:
        connection = self._connection
        connection.limits.meters.sent_bytes += len(batch.data)  # see `Meters`
        if self._held is None:
            connection.send(batch)
        else:
            connection.queue(self._held, batch)

    def _hold(self) -> None:
        self._held = self._connection.new_outbox()

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            for batch in held.take_all():
                self._deliver(batch)

    def _forget_held(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.discard()
