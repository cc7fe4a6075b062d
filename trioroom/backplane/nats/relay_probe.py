"""Whether the way through the relay is open: publications to ourselves, by the way that rooms' publications go."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from trioroom._core.meters import LinkMeters
from trioroom.backplane.nats.channel import NatsChannel
from trioroom.backplane.nats.protocol import BadProtocol
from trioroom.backplane.nats.requests import NoResponders, Requests
from trioroom.backplane.nats.settings import NatsSettings
from trioroom.backplane.nats.streams import JetStreamUnavailable, parse_answer
from trioroom.backplane.nats.subjects import Names
from trioroom.backplane.pending import Unanswered
from trioroom.backplane.probe import Probe
from trioroom.backplane.supervision import LinkLost


class RelayProbe:
    """One for all connections of a link, one after the other."""

    def __init__(self, settings: NatsSettings, requests: Requests, meters: LinkMeters) -> None:
        """``requests`` are those that go by the queue of the others."""
        names, name = Names(settings.prefix), f"probe.{secrets.token_hex(8)}"
        self._probe = Probe(settings.probe_interval, settings.probe_timeout, meters)
        self.channel = NatsChannel(f"{names.got}{name}".encode())
        """Where it comes round; to be listened to."""
        self.channel.add(self._probe)
        self._subject = names.put + name
        self._requests = requests
        self._relayed = 0  # the relay's number of the latest

    async def pass_by(self, payload: bytes = b"") -> int:
        """Publish to the channel, and return the number that the relay gave it.

        Raises:
            JetStreamUnavailable: no answer, or the relay is not there.
            BackplaneError: the server refuses it.
            LinkLost: the relay has begun anew, so that what it had may not have come to us.
        """
        before = self._relayed  # several may be on their way, and who is told first is chance
        try:
            number = parse_answer(await self._requests.ask_served(self._subject, payload)).get("seq")
        except (NoResponders, Unanswered) as exc:
            raise JetStreamUnavailable("the stream of the rooms has no leader, or is gone") from exc
        if not isinstance(number, int):
            raise BadProtocol("a publication was answered without a number")
        if number <= before:
            raise LinkLost("the stream of the rooms was lost, and has begun anew")
        self._relayed = max(number, self._relayed)
        return number

    def begin(self) -> None:
        """On another connection nothing is known of the stream."""
        self._relayed = 0

    async def keep_probing(self, tell: Callable[[bool], None], traffic: Callable[[], tuple[int, ...]]) -> None:
        """As `Probe.keep_probing`, until the connection has to be given up.

        Raises:
            LinkLost: it has.
        """
        late = await self._probe.keep_probing(self.pass_by, tell, traffic)
        raise LinkLost(f"a probe did not come round within {late:g} s")
