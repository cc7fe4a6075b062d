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

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from trioroom.backplane.room_channel import RoomChannel


@attrs.frozen
class Lost:
    """Publications of a room that this node did not get, or may not have got. What follows it comes without a hole."""

    reason: str
    """``overflow``, ``backplane`` or ``expired``, as in the ``gap`` the members get."""
    count: int | None = None
    """How many, where that is known."""


Delivery = bytes | Lost


class Backplane(Protocol):
    """What the server asks of a link that is open."""

    async def publish(self, room: str, payload: bytes) -> None:
        """Hand ``payload`` to every subscriber of ``room``, on every node.

        Returns when the broker has it. Awaits while there is no room for it, be it in a local
        subscription or in a queue to the broker: that is the publisher's backpressure. Cancelled, the
        publication may or may not have gone out; a subscriber that misses it while another one has it
        is told by a `Lost`.

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
