"""The stream through which all rooms without a history go.

Core NATS gives each subscriber an order of its own when several publish. A stream numbers what it stores and publishes
it again (``republish``) in that order, with the number in the headers, and with that of the one before on the same
subject.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import attrs

from trioroom.backplane.base import Lost
from trioroom.backplane.nats.channel import NatsChannel
from trioroom.backplane.nats.protocol import Message
from trioroom.backplane.nats.requests import NoResponders, Requests
from trioroom.backplane.nats.settings import NatsSettings
from trioroom.backplane.nats.streams import NANOSECONDS, ensure_stream
from trioroom.backplane.nats.subjects import Names


def relay_config(settings: NatsSettings) -> dict[str, object]:
    """What `ensure_stream` takes: see https://docs.nats.io/nats-concepts/jetstream/streams."""
    names = Names(settings.prefix)
    remembered = round(settings.publication_id_ttl * NANOSECONDS)
    return {
        "name": names.relay,
        "subjects": [f"{names.put}>"],
        "republish": {"src": f"{names.put}>", "dest": f"{names.got}>"},
        "retention": "limits",
        "storage": "memory",
        "discard": "old",
        "max_msgs_per_subject": 1,  # of which the next one tells the number
        "max_bytes": settings.max_relay_bytes,
        "max_age": remembered,  # the server wants no less than the next one
        "duplicate_window": remembered,
        "num_replicas": settings.replicas,
    }


@attrs.define(eq=False)
class StreamLeaders(NatsChannel):
    """Where the server tells who has a stream; on one that is alone nothing comes."""

    lose: Callable[[], None] = lambda: None

    def take(self, message: Message) -> None:
        """Another leader: what the one before has numbered and not passed on, nobody does."""
        self.lose()


class Relay:
    """Has the stream be there."""

    def __init__(self, settings: NatsSettings) -> None:
        self._config = relay_config(settings)
        self._subject = f"{Names(settings.prefix).put}check"
        self._ensured = False

    async def ensure(self, requests: Requests) -> None:
        """On each new connection, of which the first brings what has changed in the settings.

        Later ones ask nothing of a cluster but the stream itself, which may have a leader when the cluster has none.
        """
        if self._ensured:
            try:
                await requests.ask(self._subject)
                return
            except NoResponders:  # somebody has removed it, or it is between two leaders
                pass
        await ensure_stream(requests, self._config)
        self._ensured = True


@attrs.define(eq=False)
class RelayedRoom(NatsChannel):
    """Publications of a room without a history, as the relay has numbered them."""

    latest: int = 0
    """The number of what came last, or that from which on this has been live."""

    def confirm_at(self, number: int) -> None:
        """What came before does not count any more, and is told to be lost."""
        self.latest = max(number, self.latest)
        self.confirm()

    def interrupt(self) -> None:
        """On another connection the relay may be another one."""
        self.latest = 0
        super().interrupt()

    def pass_over(self, message: Message) -> None:
        """It may have come behind the number that is confirmed, and does not go missing where it is not wanted yet."""
        with suppress(KeyError, ValueError):
            self.latest = int(message.headers["Nats-Sequence"])

    def take(self, message: Message) -> None:
        """What comes, unless it has no place in the order."""
        if self._has_place(message):
            self.deliver(message.payload)

    def drop(self, message: Message) -> None:
        """The same."""
        if self._has_place(message):
            super().drop(message)

    def _has_place(self, message: Message) -> bool:
        """Whether it is from the relay; tells a loss where something is missing before it: routes of a cluster drop."""
        headers = message.headers
        try:
            number, before = int(headers["Nats-Sequence"]), int(headers["Nats-Last-Sequence"])
        except (KeyError, ValueError):
            return False
        # The one before is 0 where the relay has forgotten it. A number that was there already: it has begun anew.
        if before > self.latest or number <= self.latest:
            self.deliver(Lost("backplane"))
        self.latest = number
        return True
