"""Whether the way through the broker is open: publications to ourselves, by the way that rooms' publications go."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from operator import ne
from typing import Final

import trio

from trioroom._core.meters import LinkMeters
from trioroom.backplane.base import Delivery
from trioroom.backplane.nats.channel import NatsChannel
from trioroom.backplane.nats.protocol import BadProtocol, LinkLost
from trioroom.backplane.nats.requests import NoResponders, Requests
from trioroom.backplane.nats.settings import NatsSettings
from trioroom.backplane.nats.streams import parse_answer
from trioroom.backplane.nats.subjects import Names

_MAX_DIGITS: Final = 15  # of a probe's number; anybody may publish to its channel
_MAX_LAG: Final = 10  # times probe_timeout that a probe may take while other traffic shows that the link lives


class Probe:
    """One for all connections of a link, one after the other."""

    def __init__(self, settings: NatsSettings, requests: Requests, meters: LinkMeters) -> None:
        """``requests`` are those that go by the queue of the others."""
        names, name = Names(settings.prefix), f"probe.{secrets.token_hex(8)}"
        self.channel = NatsChannel(f"{names.got}{name}".encode())
        """Where it comes round; to be listened to."""
        self.channel.add(self)
        self._subject = names.put + name
        self._settings = settings
        self._requests = requests
        self._meters = meters
        self._sent = (
            0  # the number of the last one; not used again on the next connection, where it would prove nothing
        )
        self._returned = 0
        self._relayed = 0  # the relay's number of the latest
        self._news = trio.Event()

    def offer(self, delivery: Delivery) -> None:
        """Called by the listener."""
        if isinstance(delivery, bytes) and delivery.isdigit() and len(delivery) <= _MAX_DIGITS:
            self._returned = int(delivery)
            self._news.set()
            self._news = trio.Event()

    async def pass_by(self, payload: bytes = b"") -> int:
        """Publish to the channel, and return the number that the relay gave it.

        Raises:
            BackplaneUnavailable: no answer.
            BackplaneError: the server refuses it.
            LinkLost: the relay is not there, or has begun anew, so that what it had may not have come to us.
        """
        before = self._relayed  # several may be on their way, and who is told first is chance
        try:
            number = parse_answer(await self._requests.ask_served(self._subject, payload)).get("seq")
        except NoResponders as exc:
            raise LinkLost("the stream of the rooms has no leader, or is gone") from exc
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
        """Until it does not come round: then the connection is given up. It may take longer while others' come.

        Args:
            tell: called with whether publications come round now.
            traffic: counts of what comes, by kind; while all of them grow the way is open and has a queue.
        Raises:
            LinkLost: it did not come round in time.
        """
        settings = self._settings
        tick = min(settings.probe_interval, settings.probe_timeout / 2)  # so that one pause of ours is not all of it
        silent = 0.0  # seconds, counted in ticks: when it was we who stopped, that is one
        self._returned = self._sent
        while True:
            before, began = traffic(), trio.current_time()
            self._sent += 1
            wait = min(tick, settings.probe_timeout - silent)
            with trio.move_on_after(wait) as waiting:
                await self.pass_by(b"%d" % self._sent)
                await self._wait(self._sent)
            if not waiting.cancelled_caught:
                silent = 0.0
                self._meters.round_trips.observe(trio.current_time() - began)
                tell(True)
                await trio.sleep(settings.probe_interval)
                continue
            late = tick * (self._sent - self._returned)  # of those on their way, the oldest: lag itself may be steady
            self._meters.round_trips.observe(late)  # or more: it is still on its way
            alive = all(map(ne, traffic(), before))
            silent = 0.0 if alive else silent + wait
            if not alive:
                tell(False)
            if silent >= settings.probe_timeout or late >= _MAX_LAG * settings.probe_timeout:
                raise LinkLost(f"a probe did not come round within {late:g} s")

    async def _wait(self, number: int) -> None:
        while self._returned < number:
            await self._news.wait()
