"""What became of an order to put somebody out."""

from __future__ import annotations

import attrs


@attrs.frozen
class Revocation:
    """What `App.disconnect` or `App.kick` has done, on all servers that the backplane links."""

    connections: int
    """Connections that were closed, or put out of the room."""
    nodes: int
    """Servers that have done it and said so, this one included."""
    silent: int
    """Servers that are known to be there and did not say so in time; they do it when they hear of it."""
