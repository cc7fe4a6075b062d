"""Asking the server, or whoever listens there: a bounded queue of requests, each with a reply to an inbox of ours.

While one group is on its way the next one gathers, so that under load a system call and a wake-up on
either side carry many publications, and a single one waits for nobody.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from typing import Final, NoReturn

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
from trioroom.errors import BackplaneError, BackplaneUnavailable

_LOOKS_PER_TIMEOUT: Final = 20  # so that a request may wait a twentieth longer than it should
_GROUP_BYTES: Final = 1 << 18  # of one system call; what waits beyond goes with the next
_MAX_REPLIED: Final = 2 * MAX_MESSAGE  # of one request: a page of many messages, of which the last may be the largest
_NO_RESPONDERS: Final = 503
_FIRST_PAUSE: Final = 0.02  # seconds until what nobody answers is asked again; twice as many each time
_LONGEST_PAUSE: Final = 0.3


class NoResponders(BackplaneUnavailable):
    """Nobody listens on that subject now, so the server says so at once; what was asked has gone nowhere."""


@attrs.define(eq=False)
class _Pending:
    """One request, until it has been answered."""

    subject: bytes
    token: bytes  # of its inbox
    packed: bytes
    size: int  # of headers and payload
    since: float
    last: Callable[[Message], bool] | None  # of several replies; None wants one
    replies: list[Message] = attrs.field(factory=list)
    replied: int = 0  # bytes of them
    asker: trio.lowlevel.Task | None = None  # parked; None once it has been woken or cancelled


class Requests:
    """Outlives connections: what was not sent waits for the next one; `run` has one at a time."""

    def __init__(
        self, sid: int, timeout: float, max_queued: int, max_queued_bytes: int, meters: LinkMeters | None = None
    ) -> None:
        """``sid`` is of the inbox's subscription; the bounds are those of `NatsSettings`."""
        self.sid = sid
        self.timeout = timeout
        """Seconds for an answer."""
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self._meters = meters or LinkMeters()
        self._inbox = f"_INBOX.{secrets.token_hex(8)}.".encode()
        self.subscription = pack_subscription(self._inbox + b"*", sid)
        """To be sent first of all: without it no answer comes."""
        self._count = 0
        self._waiting: dict[bytes, _Pending] = {}  # not sent; by token, in their order, as are those that are
        self._sent: dict[bytes, _Pending] = {}
        self._bytes = 0  # of both
        self._writer: trio.lowlevel.Task | None = None  # parked, as nothing waits
        self._full = trio.lowlevel.ParkingLot()
        self._down_since: float | None = trio.current_time()  # None while there is a connection
        self._given_up: Callable[[], Exception] | None = None
        self.answered = 0
        """How often something came for what was asked, other than that nobody was there."""
        self.trouble: str | None = None
        """Why there is no connection, where that is known; for the message to who waits for one."""

    @property
    def queued(self) -> int:
        """Requests that have not been answered."""
        return len(self._waiting) + len(self._sent)

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
        [reply] = await self._ask(subject, payload, headers, None)
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
        replies = await self._ask(subject, payload, None, lambda reply: reply.status == _NO_RESPONDERS or last(reply))
        _heard(replies[-1], subject)
        return replies

    async def _ask(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None,
        last: Callable[[Message], bool] | None,
    ) -> list[Message]:
        pending = self._pack(subject.encode(), payload, headers, last)
        if self._down_since is not None and pending.since - self._down_since > self.timeout:
            await self._refuse(pending.since - self._down_since)
        if self._is_full:
            await self._wait_for_room()
        if self._given_up is not None:
            await trio.lowlevel.checkpoint()
            raise self._given_up()
        self._waiting[pending.token] = pending
        self._bytes += len(pending.packed)
        if not self._is_full:
            self._full.unpark()  # the next one: a large publication may have kept out many small ones
        if self._writer is not None:
            trio.lowlevel.reschedule(self._writer)
            self._writer = None
        pending.asker = trio.lowlevel.current_task()

        def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            pending.asker = None
            self._forget(pending)
            return trio.lowlevel.Abort.SUCCEEDED

        replies: list[Message] = await trio.lowlevel.wait_task_rescheduled(abort)
        return replies

    def _pack(
        self,
        subject: bytes,
        payload: bytes,
        headers: Mapping[str, str] | None,
        last: Callable[[Message], bool] | None,
    ) -> _Pending:
        if len(subject) > MAX_SUBJECT:
            raise BackplaneError(f"the broker takes no {too_long(subject)}")
        self._count += 1
        token, head = b"%d" % self._count, pack_headers(headers)
        packed = pack_publication(subject, self._inbox + token, head, payload)
        return _Pending(subject, token, packed, len(head) + len(payload), trio.current_time(), last)

    async def _refuse(self, down: float) -> NoReturn:
        # A short outage is worth waiting for. In a long one each on_leave of a drain, say, would wait in vain.
        await trio.lowlevel.checkpoint()
        raise BackplaneUnavailable(f"the broker has been out of reach for {down:.1f} s{self._because}; retry later")

    @property
    def _because(self) -> str:
        return f" ({self.trouble})" if self.trouble else ""

    @property
    def _is_full(self) -> bool:
        return self.queued >= self._max_queued or (self.queued > 0 and self._bytes >= self._max_queued_bytes)

    async def _wait_for_room(self) -> None:
        with trio.move_on_after(self.timeout):
            while self._is_full and self._given_up is None:
                await self._full.park()
            return
        raise BackplaneUnavailable(
            f"{self.queued} publications waited for the broker and left no room for another within "
            f"timeout={self.timeout:g} s; publish less, or see max_queued_publications"
        )

    # -- for the link ----------------------------------------------------------------------------

    async def expire(self) -> None:
        """Until cancelled, fail what has waited for longer than ``timeout``.

        A cancel scope for each publication would say the same and take a third of its time.
        """
        while True:
            await trio.sleep(self.timeout / _LOOKS_PER_TIMEOUT)
            self._expire(trio.current_time() - self.timeout)

    def _expire(self, oldest: float) -> None:
        within = f"within timeout={self.timeout:g} s{self._because}"
        # All of them, as who has waited for room may stand behind who came later.
        for pending in [each for each in chain(self._waiting.values(), self._sent.values()) if each.since <= oldest]:
            # Each gets an error of its own, as each gets a traceback.
            error = BackplaneUnavailable(f"the broker has not confirmed a publication {within}; retry later")
            self._resolve(pending, outcome.Error(error))

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
                if not self._waiting:
                    self._writer = trio.lowlevel.current_task()
                    await trio.lowlevel.wait_task_rescheduled(self._forget_writer)
                if group := self._take_group(connection.info.max_payload):
                    await connection.send(group)
        finally:
            self._writer = None
            self._down_since = trio.current_time()
            for pending in list(self._sent.values()):
                lost = BackplaneUnavailable(
                    "the link to the broker broke while a publication was on its way; it may have gone out or not"
                )
                self._resolve(pending, outcome.Error(lost))

    def _forget_writer(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self._writer = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _take_group(self, max_payload: int) -> bytes:
        size = 0
        group: list[_Pending] = []
        for pending in list(self._waiting.values()):
            if pending.size > max_payload:
                self._refuse_too_large(pending, max_payload)
                continue
            del self._waiting[pending.token]
            self._sent[pending.token] = pending  # before it is sent: cancelled amid, some of it may have gone out
            group.append(pending)
            size += len(pending.packed)
            if size >= _GROUP_BYTES:
                break
        if group:
            self._meters.batches.observe(len(group))
        return b"".join([pending.packed for pending in group])

    def _refuse_too_large(self, pending: _Pending, max_payload: int) -> None:
        text = (
            f"{pending.size} bytes are more than the broker takes; raise max_payload={max_payload} in its configuration"
        )
        self._resolve(pending, outcome.Error(BackplaneError(text)))

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
            pending.replied += reply.size
            if pending.replied > _MAX_REPLIED:
                text = f"one question was answered with {pending.replied} bytes; retry later"
                self._resolve(pending, outcome.Error(BackplaneUnavailable(text)))
            elif pending.last is None or pending.last(reply):
                self._resolve(pending, outcome.Value(pending.replies))

    def refuse(self, subject: bytes, error: Callable[[], Exception]) -> bool:
        """The server permits nothing to be published to ``subject``; whether that was asked for here."""
        for pending in self._sent.values():
            if pending.subject == subject:
                self._resolve(pending, outcome.Error(error()))
                return True
        return False

    def give_up(self, error: Callable[[], Exception]) -> None:
        """Fail what waits and what is still to come, for no connection will; the first who says so counts."""
        self._given_up = self._given_up or error
        self._full.unpark_all()
        for pending in list(self._waiting.values()):
            self._resolve(pending, outcome.Error(error()))

    def _resolve(self, pending: _Pending, result: outcome.Outcome[list[Message]]) -> None:
        self._forget(pending)
        if pending.asker is not None:
            trio.lowlevel.reschedule(pending.asker, result)
            pending.asker = None

    def _forget(self, pending: _Pending) -> None:
        if (self._waiting.pop(pending.token, None) or self._sent.pop(pending.token, None)) is not None:
            self._bytes -= len(pending.packed)
            if self._full:
                self._full.unpark()


def _heard(reply: Message, subject: str) -> Message:
    if reply.status == _NO_RESPONDERS:
        raise NoResponders(f"nobody at the broker answers on {subject!r}; retry later")
    return reply


link_closed = partial(BackplaneUnavailable, "the link to the broker is closed; publish while it is open")
"""The error of what comes after the end."""
