"""Asking the server, or whoever listens there: requests in a queue, each with a reply to an inbox of ours."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import attrs
import outcome
import trio

from trioroom._core.meters import LinkMeters
from trioroom.backplane.nats.connection import NatsConnection
from trioroom.backplane.nats.protocol import (
    MAX_MESSAGE,
    MAX_SUBJECT,
    Message,
    pack_headers,
    pack_publication,
    pack_subscription,
    too_long,
)
from trioroom.backplane.pending import Pending, PendingQueue
from trioroom.errors import BackplaneError, BackplaneUnavailable

_MAX_REPLIED: Final = 2 * MAX_MESSAGE  # of one request: a page of many messages, of which the last may be the largest
_NO_RESPONDERS: Final = 503
_FIRST_PAUSE: Final = 0.02  # seconds until what nobody answers is asked again; twice as many each time
_LONGEST_PAUSE: Final = 0.3


class NoResponders(BackplaneUnavailable):
    """Nobody listens on that subject now, so the server says so at once; what was asked has gone nowhere."""


@attrs.define(eq=False)
class _Request(Pending):
    subject: bytes
    token: bytes  # of its inbox
    size: int  # of headers and payload
    last: Callable[[Message], bool] | None  # of several replies; None wants one
    replies: list[Message] = attrs.field(factory=list)
    replied: int = 0  # bytes of them


class Requests(PendingQueue[_Request]):
    """`run` has one connection at a time."""

    def __init__(
        self, sid: int, timeout: float, max_queued: int, max_queued_bytes: int, meters: LinkMeters | None = None
    ) -> None:
        """``sid`` is of the inbox's subscription; the bounds are those of `NatsSettings`."""
        super().__init__(timeout, max_queued, max_queued_bytes, meters or LinkMeters())
        self.sid = sid
        self._inbox = f"_INBOX.{secrets.token_hex(8)}.".encode()
        self.subscription = pack_subscription(self._inbox + b"*", sid)
        """To be sent first of all: without it no answer comes."""
        self._count = 0
        self._sent: dict[bytes, _Request] = {}  # by token
        self.answered = 0
        """How often something came for what was asked, other than that nobody was there."""

    def _on_their_way(self) -> Iterable[_Request]:
        return self._sent.values()

    def _abandon(self, pending: _Request) -> None:
        super()._abandon(pending)
        if self._sent.pop(pending.token, None) is not None:
            self._release(pending)

    # -- for who asks ----------------------------------------------------------------------------

    async def ask(self, subject: str, payload: bytes = b"", headers: Mapping[str, str] | None = None) -> Message:
        """The reply; always a checkpoint. Calls may overlap, and then share a round trip.

        Cancelled before it was sent, it never will be.

        Raises:
            BackplaneUnavailable: no answer within ``timeout``, or the link broke: it may have gone out or not. At once
                when there has been no connection for so long already.
            NoResponders: nobody is there to answer.
            BackplaneError: the server refuses it: it is too large, or not permitted.
            ValueError: a header has a line break.
        """
        [reply] = await self._ask(self._pack(subject.encode(), payload, headers, None))
        return _heard(reply, subject)

    async def ask_served(self, subject: str, payload: bytes = b"", headers: Mapping[str, str] | None = None) -> Message:
        """As `ask`, and again while nobody answers, for ``timeout``.

        For what a stream listens to: it may be between two leaders, or not known to the server we are connected to yet.
        """
        deadline, pause = trio.current_time() + self.timeout, _FIRST_PAUSE
        while True:
            try:
                return await self.ask(subject, payload, headers)
            except NoResponders:
                if trio.current_time() + pause > deadline:
                    raise
            await trio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def ask_many(self, subject: str, payload: bytes = b"", *, last: Callable[[Message], bool]) -> list[Message]:
        """All replies up to the one of which ``last`` says so, that one included, within ``timeout``; else as `ask`.

        How many there may be is the caller's to bound, by what it asks for.
        """
        pending = self._pack(
            subject.encode(), payload, None, lambda reply: reply.status == _NO_RESPONDERS or last(reply)
        )
        replies: list[Message] = await self._ask(pending)
        _heard(replies[-1], subject)
        return replies

    def _pack(
        self,
        subject: bytes,
        payload: bytes,
        headers: Mapping[str, str] | None,
        last: Callable[[Message], bool] | None,
    ) -> _Request:
        if len(subject) > MAX_SUBJECT:
            raise BackplaneError(f"the broker takes no {too_long(subject)}")
        self._count += 1
        token, head = b"%d" % self._count, pack_headers(headers)
        packed = pack_publication(subject, self._inbox + token, head, payload)
        return _Request(packed, trio.current_time(), subject, token, len(head) + len(payload), last)

    # -- for the link ----------------------------------------------------------------------------

    async def run(
        self, connection: NatsConnection, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Send until cancelled or the link is lost; then what was on its way has failed. Replies come by `take`.

        Raises:
            LinkLost: the connection is over.
        """
        self._down_since = None
        try:
            task_status.started()
            while True:
                group = await self._next_group()
                fitting = [pending for pending in group if self._fits(pending, connection.info.max_payload)]
                if fitting:
                    self._meters.batches.observe(len(fitting))
                    # Before it is sent: cancelled amid, some of it may have gone out.
                    self._sent.update((pending.token, pending) for pending in fitting)
                    await connection.send(b"".join([pending.packed for pending in fitting]))
        finally:
            sent, self._sent = self._sent, {}
            self._lose(sent.values())

    def _fits(self, pending: _Request, max_payload: int) -> bool:
        if pending.size <= max_payload:
            return True
        text = (
            f"{pending.size} bytes are more than the broker takes; raise max_payload={max_payload} in its configuration"
        )
        self._resolve(pending, outcome.Error(BackplaneError(text)))
        return False

    def take(self, replies: list[Message]) -> None:
        """What has come to the inbox, together."""
        observed = False
        skip = len(self._inbox)
        for reply in replies:
            pending = self._sent.get(reply.subject[skip:])
            if pending is None:
                continue  # too late
            if not observed:  # once for all of them: a look at the clock for each would show
                self._meters.publishing.observe(trio.current_time() - pending.since)
                observed = True
            self.answered += reply.status != _NO_RESPONDERS
            pending.replies.append(reply)
            if pending.last is None:
                self._answer(pending, outcome.Value(pending.replies))
            else:
                self._take_one_of_many(pending, reply, pending.last)

    def _take_one_of_many(self, pending: _Request, reply: Message, last: Callable[[Message], bool]) -> None:
        pending.replied += reply.size
        if pending.replied > _MAX_REPLIED:
            text = f"one question was answered with {pending.replied} bytes; retry later"
            self._answer(pending, outcome.Error(BackplaneUnavailable(text)))
        elif last(reply):
            self._answer(pending, outcome.Value(pending.replies))

    def refuse(self, subject: bytes, error: Callable[[], Exception]) -> bool:
        """The server permits nothing to be published to ``subject``; whether that was asked for here."""
        for pending in self._sent.values():
            if pending.subject == subject:
                self._answer(pending, outcome.Error(error()))
                return True
        return False

    def _answer(self, pending: _Request, result: outcome.Outcome[list[Message]]) -> None:
        del self._sent[pending.token]
        self._resolve(pending, result)


def _heard(reply: Message, subject: str) -> Message:
    if reply.status == _NO_RESPONDERS:
        raise NoResponders(f"nobody at the broker answers on {subject!r}; retry later")
    return reply
