"""The contract between a node and the link to other nodes.

A server holds one backplane for its whole life; every active room holds one subscription. Who makes
a backplane opens it and hands it over open: a link to a broker comes from an async context manager of
its module, ``open_x()``, which outlives the server, so that the last ``on_leave`` can still publish.
Guarantees each implementation gives, and `trioroom.testing.BackplaneConformance` checks:

* **Order**: all subscribers of a room, on every node, the publisher's own included, see its
  publications in one order. A publication goes round through the broker to its own node too.
* **At most once**: a publication that is lost while a subscription lives is told by a `Lost` in its
  place, never by silence.
* **Lasting**: a subscription outlives outages of the broker; it ends only when its context is left.
* **Bounded**: what waits for a subscriber waits in its channel and nowhere else, which has a bound in
  publications and one in bytes. No room holds up another one: what comes for a full channel either keeps
  its publishers waiting or is dropped and told by a `Lost`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs

from trioroom._core.history import History, Kept, Page, Position
from trioroom._core.meters import LinkMeters

if TYPE_CHECKING:
    from trioroom.backplane.room_channel import RoomChannel


@attrs.frozen
class Lost:
    """Publications of a room that this node did not get, or may not have got. What follows it comes without a hole."""

    reason: str
    """``overflow``, ``backplane`` or ``expired``, as in the ``gap`` the members get."""
    count: int | None = None
    """How many, where that is known."""
    dropped: tuple[Position, ...] = ()
    """The latest of each epoch among those of a history that came and found no room; the store once had them."""


Delivery = bytes | Kept | Lost
"""`Kept` where the room has a history, bytes where it has none."""


class Backplane(Protocol):
    """What the server asks of a link that is open."""

    @property
    def history(self) -> HistoryStore | None:
        """What keeps publications of rooms that ask for it; None: it cannot."""
        ...

    @property
    def presence(self) -> PresenceStore | None:
        """What knows who is in a room on other nodes; None: it cannot."""
        ...

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        """Hand ``payload`` to every subscriber of ``room``, on every node.

        Returns when the broker has it. Awaits while there is no room for it, be it in a local
        subscription or in a queue to the broker: that is the publisher's backpressure. Cancelled, the
        publication may or may not have gone out; a subscriber that misses it while another one has it
        is told by a `Lost`.

        Args:
            publication_id: one that has been used in this room within the backplane's ``publication_id_ttl`` does
                nothing: so a publisher who does not know whether it went out may try again.
        Raises:
            BackplaneUnavailable: the broker cannot be reached; the publication may have gone out or not.
            BackplaneError: the broker refuses it, as it will again.
        """
        ...

    def subscribe(self, room: str, channel: RoomChannel) -> AbstractAsyncContextManager[None]:
        """Put what is published to ``room``, any text, into ``channel`` while the context is open.

        The channel is the caller's, who closes it, if need be before the context is left. Subscriptions of one room are
        independent of each other.

        Raises:
            BackplaneUnavailable: the broker cannot be reached.
        """
        ...

    @property
    def ready(self) -> bool:
        """Whether publications come through now; ``/readyz`` says so."""
        ...


@runtime_checkable
class Counting(Protocol):
    """A backplane that says how its link to the broker does; one need not be that."""

    @property
    def meters(self) -> LinkMeters:
        """All it has counted so far."""
        ...


class HistoryStore(Protocol):
    """Publications that are kept. A room has a history or has none, on all nodes alike.

    Offsets go up within an epoch, and may have holes, where rooms share them. So an offset is a place: each from that
    of one publication up to, and without, that of the next is right behind the first. What is delivered says in
    `Kept.follows` what it comes behind; where that is not known the room reads from there, as after a `Lost`.

    An epoch ends when the store cannot vouch for it any more: its data is gone, or older than what it once confirmed.
    Where another incarnation of the store goes on from what it found, `Page.previous` says up to where nothing differs.
    """

    @property
    def dense_offsets(self) -> bool:
        """Whether they go up by one in each room, so that those between two places can be counted."""
        ...

    async def publish(
        self, room: str, payload: bytes, history: History | None, publication_id: str | None = None
    ) -> Position | None:
        """Append ``payload`` and hand it to every subscriber, as one step: all see it in the order of the offsets.

        As `Backplane.publish` otherwise.

        Args:
            history: None is what the room's last publisher or reader said; where there was none nothing happens.
        Returns:
            Its position; that of the first one for a ``publication_id`` that has been used; None if nothing happened.
        """
        ...

    def subscribe(self, room: str, channel: RoomChannel) -> AbstractAsyncContextManager[None]:
        """As `Backplane.subscribe`; what comes is `Kept` and `Lost`. After a `Lost`, `read` what is missing."""
        ...

    async def read_after(
        self, room: str, history: History, offset: int | None, limit: int, *, seen: Position | None = None
    ) -> Page:
        """What follows ``offset``, or for None nothing but where the history ends.

        Returns up to ``limit`` of the publications after ``offset``, or after `Page.start` if that is later, from the
        first of them on; fewer if they are large, but one at least where there is one.

        Args:
            seen: a position that the store has once confirmed to this node, by a delivery or a reply. If it does not
                have it any more, what others were confirmed may be lost too, so that a new epoch begins.
        Raises:
            BackplaneUnavailable: the broker cannot be reached.
        """
        ...

    async def read_before(self, room: str, history: History, offset: int, limit: int) -> Page:
        """The last ``limit`` publications whose offsets are below ``offset``; fewer if they are large. Else alike."""
        ...


class PresenceListener(Protocol):
    """Who is told of the rows of other seats; called by the store's own tasks, so it takes what comes at once."""

    def rows_changed(self, seat: str, put: Mapping[str, bytes], removed: Collection[str]) -> None:
        """Another seat has put and removed rows."""
        ...

    def seat_gone(self, seat: str) -> None:
        """It has been closed, or its node is dead: all its rows are gone."""
        ...

    def resynced(self, seats: Mapping[str, Mapping[str, bytes]]) -> None:
        """All rows of all other seats: what was told before may be wrong."""
        ...


class PresenceSeat(Protocol):
    """The rows of one room on one node: user id -> what it shows of itself."""

    def put(self, user: str, info: bytes) -> None:
        """From soon on others have this row. Never blocks; outages are the store's to outlast."""
        ...

    def remove(self, user: str) -> None:
        """And from soon on not any more."""
        ...


class PresenceStore(Protocol):
    """A table for each room that all nodes see. Rows of a node that dies are gone within the store's lease."""

    def open(self, room: str, listener: PresenceListener, interval: float) -> AbstractAsyncContextManager[PresenceSeat]:
        """A seat without rows; when the context is left its rows are gone. Entered after the first `resynced`.

        Args:
            interval: seconds between two writes, which carry all that has changed.
        Raises:
            BackplaneUnavailable: the broker cannot be reached.
        """
        ...
