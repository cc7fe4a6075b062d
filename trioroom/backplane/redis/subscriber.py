"""The listening half of a link: which channels are wanted, and what comes on them.

The server answers commands in their order, with one confirmation for each channel. So each is taken for
the oldest channel that waits for one: a room that is left and joined again in one breath is live only
when its own, newer subscription is confirmed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import attrs
import trio
from redis.exceptions import ResponseError

from trioroom.backplane.base import Lost
from trioroom.backplane.channel import Channel
from trioroom.backplane.redis.resp import RedisConnection, Reply, pack
from trioroom.backplane.supervision import LinkLost
from trioroom.errors import BackplaneError

log = logging.getLogger("trioroom.backplane")
_BATCH = 512  # channels of one command, or of one write
_MAX_UNCONFIRMED = 4 * _BATCH  # channels: both sides stay busy, and 100,000 rooms are no storm of confirmations


@attrs.frozen
class Words:
    """The commands of one kind of Pub/Sub (https://redis.io/docs/latest/develop/pubsub/)."""

    publish: bytes
    subscribe: bytes
    unsubscribe: bytes
    message: bytes
    together: bool
    """Whether one command may name several channels; sharded ones would have to share a slot."""


CLASSIC = Words(b"PUBLISH", b"SUBSCRIBE", b"UNSUBSCRIBE", b"message", together=True)
SHARDED = Words(b"SPUBLISH", b"SSUBSCRIBE", b"SUNSUBSCRIBE", b"smessage", together=False)


@attrs.define(eq=False)
class _Wish:
    """To subscribe or unsubscribe one channel."""

    word: bytes
    channel: Channel
    generation: int
    command: int = 0  # the number of the command it went with: an error answers all of that


class Subscriber:
    """Wanted channels outlive connections; `run` has one at a time, and first restores what is wanted."""

    def __init__(self, words: Words, max_payload: int, on_moved: Callable[[], None]) -> None:
        self.channels: dict[bytes, Channel] = {}
        self.adrift: set[Channel] = set()
        """Wanted, but served by another node of the cluster now; `on_moved` has been told."""
        self._words = words
        self._max_payload = max_payload
        self._on_moved = on_moved
        self._wishes: deque[_Wish] = deque()
        self._unconfirmed: deque[_Wish] = deque()
        self._commands = 0
        self._to_restore = 0
        self._news = trio.Event()
        self._restored = trio.Event()
        self._running = False

    def add(self, channel: Channel) -> None:
        """Want ``channel``, which tells itself when it is live; again, when it was adrift."""
        self.channels[channel.name] = channel
        self.adrift.discard(channel)
        channel.generation += 1
        if self._running:
            self._wish(self._words.subscribe, channel)

    def remove(self, channel: Channel) -> None:
        """Want it no longer."""
        del self.channels[channel.name]
        self.adrift.discard(channel)
        channel.interrupt()
        if self._running:
            self._wish(self._words.unsubscribe, channel)

    async def wait_restored(self) -> None:
        """Until all channels that were wanted when `run` began, or will be when it does, have been confirmed."""
        await self._restored.wait()

    async def run(self, connection: RedisConnection) -> None:
        """Listen until cancelled or the link is lost; from then on no channel is live. Never waits for a room.

        Raises:
            LinkLost: the connection is over, or what was live before is refused now.
        """
        self._running = True
        self.adrift.clear()  # all are asked for again, the link's own probe channel too
        self._to_restore = len(self.channels)
        for channel in self.channels.values():
            self._wish(self._words.subscribe, channel)
        self._check_restored()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, connection)
                while True:
                    for reply in await connection.receive():
                        self._take(reply)
        finally:
            self._running = False
            self._restored = trio.Event()
            self._wishes.clear()
            self._unconfirmed.clear()
            for channel in self.channels.values():
                channel.interrupt()

    def _wish(self, word: bytes, channel: Channel) -> None:
        self._wishes.append(_Wish(word, channel, channel.generation))
        self._news.set()

    def _check_restored(self) -> None:
        if self._to_restore == 0:
            self._restored.set()

    # -- commands --------------------------------------------------------------------------------

    async def _write(self, connection: RedisConnection) -> None:
        while True:
            self._news = trio.Event()
            if self._wishes and len(self._unconfirmed) <= _MAX_UNCONFIRMED - _BATCH:
                await connection.send(self._take_commands())
            else:
                await self._news.wait()

    def _take_commands(self) -> bytes:
        """The next wishes that share a word, packed."""
        word, together = self._wishes[0].word, self._words.together
        wishes: list[_Wish] = []
        while self._wishes and self._wishes[0].word is word and len(wishes) < _BATCH:
            wish = self._wishes.popleft()
            if not (together and wishes):
                self._commands += 1
            wish.command = self._commands
            wishes.append(wish)
        self._unconfirmed += wishes
        names = [wish.channel.name for wish in wishes]
        if together:
            return pack((word, *names))
        return b"".join([pack((word, name)) for name in names])

    # -- what comes ------------------------------------------------------------------------------

    def _take(self, reply: Reply) -> None:
        if isinstance(reply, ResponseError):
            return self._refused(reply)
        try:
            kind, name, value = reply
        except (TypeError, ValueError):
            raise LinkLost(f"the server sent {reply!r:.80}, which is no part of Pub/Sub") from None
        channel = self.channels.get(name)
        if kind != self._words.message:
            self._confirmed(kind.upper(), name, channel)
        elif channel is not None and channel.live:
            if len(value) > self._max_payload:
                fields = {"bytes": len(value), "channel": name}
                log.warning(
                    "dropped %d bytes on channel %r: more than max_publication_bytes", len(value), name, extra=fields
                )
                value = Lost("backplane", 1)
            channel.deliver(value)

    def _confirmed(self, word: bytes, name: bytes, channel: Channel | None) -> None:
        wish = self._unconfirmed[0] if self._unconfirmed else None
        if wish is None or wish.word != word or wish.channel.name != name:
            if word != self._words.unsubscribe or self._words.together:
                raise LinkLost(f"the server confirmed {word.decode()} of {name!r}, which nobody asked for")
            if channel is not None:  # its slot moved to another node (sharded Pub/Sub)
                self._set_adrift(channel)
            return
        self._answered()
        if word == self._words.subscribe and self._is_current(wish):
            wish.channel.confirm()

    def _refused(self, error: ResponseError) -> None:
        if not self._unconfirmed:
            raise LinkLost(f"the server answered what nobody asked: {error}")
        command = self._unconfirmed[0].command
        while self._unconfirmed and self._unconfirmed[0].command == command:
            wish = self._answered()
            if not self._is_current(wish):
                continue
            if is_moved(error) and not self._words.together:
                self._set_adrift(wish.channel)
            elif wish.channel.interrupted:  # members sit there and would hear nothing
                raise LinkLost(f"the server refuses {wish.word.decode()}: {error}")
            else:
                wish.channel.refuse(BackplaneError(f"the broker refuses {wish.word.decode()}: {error}"))

    def _answered(self) -> _Wish:
        wish = self._unconfirmed.popleft()
        if self._to_restore and wish.word == self._words.subscribe:  # the first of those are the restored ones
            self._to_restore -= 1
            self._check_restored()
        if self._wishes:
            self._news.set()
        return wish

    def _is_current(self, wish: _Wish) -> bool:
        channel = wish.channel
        return self.channels.get(channel.name) is channel and channel.generation == wish.generation

    def _set_adrift(self, channel: Channel) -> None:
        channel.interrupt()
        self.adrift.add(channel)
        self._on_moved()


def is_moved(error: ResponseError) -> bool:
    """Whether another node of the cluster has the slot now, or none has it for the moment."""
    return str(error).startswith(("MOVED", "CLUSTERDOWN", "TRYAGAIN", "ASK "))
