"""A member: one connection's place in one room."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVarTuple

from trioroom._core.outbox import Outbox, Verdict

if TYPE_CHECKING:
    from trioroom._net.active_room import ActiveRoom
    from trioroom._net.connection import Connection
    from trioroom._net.lazy_nursery import LazyNursery
    from trioroom._wire.http import Request
    from trioroom._wire.message import Data
    from trioroom.room import Room

Args = TypeVarTuple("Args")


class Member:
    """What a hook gets. It is over when ``on_leave`` has run; sending to it then does nothing."""

    __slots__ = ("_active", "_connection", "_held", "_present", "_put_out", "_tasks", "token")

    def __init__(self, active: ActiveRoom, connection: Connection, token: str | None) -> None:
        self._active = active
        self._connection = connection
        self._held: Outbox | None = None  # while on_join runs: the state that it returns goes first
        self._present = False  # in the room: from before on_join until before on_leave
        self._put_out: str | None = None  # why, when `leave` was called while on_join ran
        self._tasks: LazyNursery | None = None
        self.token = token
        """What the peer sent in ``auth``, unchecked; ``authorize`` decides what it is worth."""

    def __repr__(self) -> str:
        return f"<Member {self.id} of {self.room.name!r}>"

    @property
    def id(self) -> str:
        """Unique among all members of the room, on all nodes; ``from`` in the messages of v1."""
        return self._connection.id

    @property
    def room(self) -> Room:
        """The room this is a place in."""
        return self._active.room

    @property
    def request(self) -> Request:
        """The opening HTTP request, with its path, query and headers. Kept until the connection ends."""
        return self._connection.request

    def send(self, data: Data) -> None:
        """Send ``data`` to this member alone.

        Never blocks: what the kernel does not take now waits in the connection's outbox, and a peer
        that lets it fill up is closed with 4108. Text and bytes go verbatim; other values as JSON.

        Raises:
            TypeError: ``data`` is no text, bytes or JSON value.
        """
        if not self._present:
            return
        self._deliver(self._connection.encoding.message(self._active.room.name, data, None), 1)

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

    def _deliver(self, frames: bytes, messages: int) -> None:
        if self._held is None:
            self._connection.send(frames, messages)
        elif self._held.offer(frames, messages) is Verdict.OVERFLOW:
            self._connection.drop_slow_consumer(self._held)

    def _hold(self) -> None:
        self._held = self._connection.new_outbox()

    def _release(self) -> None:
        held, self._held = self._held, None
        if held:
            messages = held.messages
            self._connection.send(held.take(held.queued_bytes), messages)
