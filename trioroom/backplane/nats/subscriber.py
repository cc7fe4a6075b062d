"""The listening half of a link: which channels are wanted, and what comes on them.

NATS confirms no subscription. So behind each batch of them goes a request: what answers it has seen what was sent
before, and a server that refused one of them has said so before the answer comes. Subscriptions have numbers, no number
is used twice, and a room that is left and joined again in one breath hears only its own, newer subscription.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import trio

from trioroom.backplane.base import Lost
from trioroom.backplane.nats.channel import NatsChannel
from trioroom.backplane.nats.connection import NatsConnection
from trioroom.backplane.nats.protocol import (
    MAX_SUBJECT,
    Message,
    pack_subscription,
    pack_unsubscription,
    too_long,
)
from trioroom.backplane.supervision import LinkLost
from trioroom.errors import BackplaneError

log = logging.getLogger("trioroom.backplane")
_BATCH: Final = 512  # subscriptions between two confirmations, so that 100,000 rooms come back without a storm
FIRST_SID: Final = 16  # those below are the inboxes'


class Subscriber:
    """Wanted channels outlive connections; `run` has one at a time, and first restores what is wanted."""

    def __init__(self, max_payload: int) -> None:
        self.channels: dict[bytes, NatsChannel] = {}
        self.heard = 0
        """Messages that came for channels that are live."""
        self._max_payload = max_payload
        self._by_sid: dict[int, NatsChannel] = {}
        self._last_sid = FIRST_SID
        self._wishes: deque[tuple[NatsChannel, int]] = deque()  # subscribe as this; not any more if it has another one
        self._on_way: list[tuple[NatsChannel, int]] = []  # sent and not confirmed
        self._unwanted: deque[int] = deque()
        self._news = trio.Event()
        self._restored = trio.Event()
        self._running = False

    def add(self, channel: NatsChannel) -> None:
        """Want ``channel``, which tells itself when it is live."""
        self.channels[channel.name] = channel
        if self._running:
            self._wish(channel)

    def remove(self, channel: NatsChannel) -> None:
        """Want it no longer."""
        del self.channels[channel.name]
        channel.interrupt()
        if self._running:
            self._by_sid.pop(channel.sid, None)
            self._unwanted.append(channel.sid)
            self._news.set()

    async def wait_restored(self) -> None:
        """Until all channels that were wanted when `run` began, or will be when it does, have been confirmed."""
        await self._restored.wait()

    async def run(
        self, connection: NatsConnection, confirm: Callable[[Collection[NatsChannel]], Awaitable[int]]
    ) -> None:
        """Subscribe until cancelled or the link is lost; from then on no channel is live. Messages come by `take`.

        Args:
            confirm: returns when the subscriptions of these have been heard of wherever publications come from, with
                the relay's number then.
        Raises:
            LinkLost: the connection is over, or what was live before is refused now.
        """
        self._running = True
        for channel in self.channels.values():
            self._wish(channel)
        try:
            while True:
                batch = self._take_batch()
                self._on_way = list(batch)
                if batch or self._unwanted:
                    await connection.send(self._pack(batch))
                if batch:
                    self._confirm(batch, await confirm([channel for channel, _ in batch]))
                if not self._wishes:
                    self._restored.set()
                    await self._wait_news()
        finally:
            self._running = False
            self._restored = trio.Event()
            self._wishes.clear()
            self._unwanted.clear()
            self._by_sid.clear()
            for channel in self.channels.values():
                channel.interrupt()

    def _wish(self, channel: NatsChannel) -> None:
        self._last_sid += 1
        channel.sid = self._last_sid
        channel.refusal = None
        if len(channel.name) > MAX_SUBJECT:
            return channel.refuse(BackplaneError(f"the broker takes no {too_long(channel.name)}"))
        self._by_sid[channel.sid] = channel
        self._wishes.append((channel, channel.sid))
        self._news.set()

    async def _wait_news(self) -> None:
        if not self._unwanted:
            await self._news.wait()
        self._news = trio.Event()

    def _take_batch(self) -> list[tuple[NatsChannel, int]]:
        batch: list[tuple[NatsChannel, int]] = []
        while self._wishes and len(batch) < _BATCH:
            channel, sid = self._wishes.popleft()
            if self._by_sid.get(sid) is channel:  # else it was left before we came to it
                batch.append((channel, sid))
        return batch

    def _pack(self, batch: list[tuple[NatsChannel, int]]) -> bytes:
        # What is left and joined again keeps being heard for a moment, twice: the older number is nobody's by now.
        subscriptions = [pack_subscription(channel.name, sid) for channel, sid in batch]
        unsubscriptions = [pack_unsubscription(sid) for sid in self._unwanted]
        self._unwanted.clear()
        return b"".join(subscriptions + unsubscriptions)

    def _confirm(self, batch: list[tuple[NatsChannel, int]], number: int) -> None:
        for channel, sid in batch:
            if self._by_sid.get(sid) is channel and channel.refusal is None:
                channel.confirm_at(number)

    # -- what comes ------------------------------------------------------------------------------

    def take(self, message: Message) -> None:
        """For a subscription of ours; never waits for a room."""
        channel = self._by_sid.get(message.sid)
        if channel is None:
            return
        if not channel.live:
            return channel.pass_over(message)
        self.heard += 1
        if len(message.payload) > self._max_payload:
            fields = {"bytes": len(message.payload), "channel": channel.name}
            log.warning(
                "dropped %d bytes on subject %r: more than max_publication_bytes", *fields.values(), extra=fields
            )
            return channel.drop(message)
        channel.take(message)

    def refuse(self, subject: bytes, text: str) -> bool:
        """The server does not permit to listen to ``subject``; whether somebody is told who has asked for it.

        Raises:
            LinkLost: members sit there and would hear nothing.
        """
        channel = self.channels.get(subject)
        return channel is not None and self._refuse(channel, text)

    def refuse_last(self, text: str) -> bool:
        """The server has no place for one subscription; whether it was one of those that are on their way.

        It says so once for each, and takes no other one in between: they are the last ones.

        Raises:
            LinkLost: as `refuse`.
        """
        if not self._on_way:
            return False
        channel, sid = self._on_way.pop()
        if self._by_sid.get(sid) is channel:
            self._refuse(channel, text)
        return True

    def _refuse(self, channel: NatsChannel, text: str) -> bool:
        if channel.live or channel.interrupted:
            raise LinkLost(f"the server refuses: {text}")
        channel.refuse(BackplaneError(f"the broker refuses the subscription: {text}"))
        return len(channel) > 0

    def lose(self, concerns: Callable[[NatsChannel], bool]) -> None:
        """Something may have been lost on the way; those which that ``concerns`` and who are live are told."""
        for channel in self.channels.values():
            if channel.live and concerns(channel):
                channel.deliver(Lost("backplane"))
