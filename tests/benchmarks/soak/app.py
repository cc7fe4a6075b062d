"""What the server of the soak serves."""

from __future__ import annotations

import trioroom


class Kept(trioroom.Room):
    """Rooms whose readers must not miss anything without being told."""

    history = trioroom.History(size=2_000, ttl=600)
    presence = True


class Passing(trioroom.Room):
    """Rooms that strangers come to and leave in every way."""

    overflow = trioroom.Overflow.DROP_OLDEST


class Heavy(trioroom.Room):
    """Rooms with so much to read that some do not keep up."""

    overflow = trioroom.Overflow.DISCONNECT
    max_outbox_bytes = 256 << 10


app = trioroom.App()
app.route("kept/{name}", Kept)
app.route("passing/{name}", Passing)
app.route("heavy/{name}", Heavy)
