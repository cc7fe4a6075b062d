"""A room's publications on their way out, no faster than the room's fan-out on this node follows.

A broker takes publications however slow we are, and what comes round to a full channel is lost. So
who publishes here waits while the room is behind, which in a hook means that its peer is not read.
What is under way counts as if it waited for the fan-out already. Half of the channel is for that:
the rest is for what other nodes publish, and for what the broker has confirmed and not yet sent us.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from trioroom.backplane.room_channel import weight
from trioroom.errors import BackplaneError, BackplaneUnavailable

if TYPE_CHECKING:
    from trioroom._core.history import Position
    from trioroom._core.meters import Meters
    from trioroom.backplane.room_channel import RoomChannel


class Outlet(Protocol):
    """The way to the other nodes: the backplane, or the room's history."""

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> Position | None:
        """As `trioroom.backplane.base.Backplane.publish`; with the position, where there is a history."""
        ...


@attrs.define
class _Queue:
    """Those who wait; it is there while somebody does, for most rooms never fall behind."""

    turn: trio.Lock = attrs.field(factory=trio.Lock)
    """Held by the first of them, so that nobody overtakes."""
    first: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    length: int = 0


class PacedPublisher:
    """Owned by an `ActiveRoom`, which tells it when the fan-out moves."""

    __slots__ = (
        "_bytes", "_channel", "_max_bytes", "_max_publications", "_meters", "_outlet", "_publications", "_queue",
        "_room", "_timeout",
    )  # fmt: skip

    def __init__(self, outlet: Outlet, room: str, channel: RoomChannel, timeout: float, meters: Meters) -> None:
        self._outlet = outlet
        self._room = room
        self._channel = channel
        self._timeout = timeout
        self._meters = meters
        self._max_publications = max(1, channel.max_publications // 2)
        self._max_bytes = channel.max_bytes / 2
        self._publications = 0  # under way
        self._bytes = 0
        self._queue: _Queue | None = None

    async def publish(self, payload: bytes, publication_id: str | None = None) -> Position | None:
        """Hand ``payload`` to the backplane once the fan-out has room for it; returns its place in the history.

        Raises:
            BackplaneUnavailable: it had none within the timeout; or the broker cannot be reached.
        """
        if self._queue is not None or self._is_behind():
            await self._wait()
        size = weight(payload)
        self._publications += 1
        self._bytes += size
        try:
            position = await self._outlet.publish(self._room, payload, publication_id)
            self._meters.publications += 1
            return position
        except BackplaneError:
            self._meters.failed_publications += 1
            raise
        finally:
            self._publications -= 1
            self._bytes -= size
            self.move_up()

    def move_up(self) -> None:
        """The fan-out has taken something, or has ended, or a publication has gone out: look again."""
        if self._queue is not None:
            self._queue.first.unpark()

    def _is_behind(self) -> bool:
        return (
            len(self._channel) + self._publications >= self._max_publications
            or self._channel.queued_bytes + self._bytes >= self._max_bytes
        )

    async def _wait(self) -> None:
        queue = self._queue = self._queue or _Queue()
        queue.length += 1
        try:
            with trio.move_on_after(self._timeout) as scope:
                async with queue.turn:
                    while self._is_behind():
                        await queue.first.park()
        finally:
            queue.length -= 1
            if not queue.length:
                self._queue = None
        if scope.cancelled_caught:
            self._meters.failed_publications += 1
            raise BackplaneUnavailable(
                f"room {self._room!r} has been behind for publish_timeout={self._timeout:g} s: {len(self._channel)} "
                f"publications wait for its fan-out on this server, {self._publications} are on their way there; "
                "publish less to it, or raise room_channel_size and room_channel_bytes"
            )
