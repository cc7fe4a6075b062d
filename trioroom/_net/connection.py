"""One WebSocket connection: its reader, its straight sends, its outbox and writer.

The reader is the connection's own task. Whoever has a frame for the peer sends it at once; only
what the kernel refuses goes to an outbox, opened at that moment together with a writer task that
is then the only one to send until the outbox is empty. Closing sends a close frame through the
same path and gives the connection a deadline; it ends when the peer answers or the deadline comes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from trioroom._core.backlog import Verdict
from trioroom._core.batch import Batch, single
from trioroom._core.outbox import Outbox
from trioroom._core.overflow import CONTROL, Feed, SlowConsumer
from trioroom._core.statistics import NO_LAG, Lag
from trioroom._net.failures import log_failure
from trioroom._net.transport import discard
from trioroom._wire.frames import Close, FrameParser, Opcode, Ping, Pong, encode_close, encode_frame
from trioroom._wire.message import Message
from trioroom.closecodes import CloseCode
from trioroom.errors import RemoteProtocolError

if TYPE_CHECKING:
    from trioroom._net.limits import Limits
    from trioroom._net.transport import Transport
    from trioroom._wire.encoding import Encoding
    from trioroom._wire.http import Request
    from trioroom.identity import Identity
    from trioroom.member import Member

log = logging.getLogger("trioroom.connection")
_BUSY_BEFORE_CHECKPOINT = 4  # reads and what came in them: a peer that never lets up must let others run
_PING = encode_frame(Opcode.PING, b"")
_LAST_WORDS_TIMEOUT = 1.0  # seconds a cancelled connection may take to send its close frame
GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Session(Protocol):
    """What the bytes of a connection mean: plain or v1."""

    async def open(self) -> None:
        """Begin, before anything is read."""

    async def receive(self, message: Message) -> None:
        """Act on what has come."""

    async def aclose(self, reason: str) -> None:
        """Leave all rooms; called once, however the connection ends."""

    def put_out(self, member: Member, reason: str) -> None:
        """Take ``member`` out of its room; what that means for the connection is the session's to decide."""


class Connection:
    """Owned by the task that calls `run`, once there is a `session`; over when that returns."""

    __slots__ = (
        "_address", "_control_full_at", "_half_close", "_messages", "_messages_full_at", "_parser", "_pong",
        "_straight", "_writing", "closing", "encoding", "heard", "id", "identity", "limits", "nursery", "outbox",
        "request", "session", "transport",
    )  # fmt: skip

    nursery: trio.Nursery
    session: Session

    def __init__(
        self,
        id: str,
        transport: Transport,
        request: Request,
        encoding: Encoding,
        limits: Limits,
        address: str | None = None,
    ) -> None:
        self.id = id
        self._address = address  # None while the socket knows it: connections are many, and few are asked
        self.transport = transport
        self.request = request
        self.identity: Identity | None = None  # see Authentication; None is for anonymous peers too
        self.encoding = encoding
        self.outbox: Outbox | None = None
        self.closing: Close | None = None
        self.heard = True  # something came since the heartbeat last asked
        self._writing: trio.CancelScope | None = None  # of the writer task, while there is one
        self._pong: bytes | None = None
        # The transport's non-blocking send, while nobody else sends and nothing waits; else None.
        self._straight: Callable[[bytes], int] | None = transport.send_nowait
        self._half_close = False  # the writer ends our side once it has sent all
        self.limits = limits
        settings = limits.settings
        self._messages = 0  # that the rate limit has not counted yet
        self._messages_full_at = self._control_full_at = 0.0  # see RateLimit
        self._parser = FrameParser(
            settings.max_message_bytes, settings.max_fragments, inflate=encoding.window_bits is not None
        )

    @property
    def address(self) -> str | None:
        """The peer's; see `trioroom.Member.address`."""
        if self._address is None:
            self._address = self.transport.address()
        return self._address

    async def run(self, early: bytes) -> None:
        """Serve until the connection is over. ``early`` is what came right behind the handshake."""
        async with trio.open_nursery() as self.nursery:
            try:
                await self.session.open()
                await self._read(early)
            except* GONE:
                pass  # the peer is gone without a close frame
            except* trio.Cancelled:
                self.stop()  # unless a close of ours is why we are here
                raise
            finally:
                await self._end()

    async def _end(self) -> None:
        if self.closing is None:
            self.abort()
        assert self.closing is not None
        await self.session.aclose(self.closing.reason or f"closed with {self.closing.code}")
        # Now the nursery waits for a writer with the last bytes; close() has set its deadline.

    async def _read(self, early: bytes) -> None:
        transport = self.transport
        data = early or transport.receive_nowait()
        busy = 0
        try:
            while data != b"":
                if data is None:
                    busy = 0
                    await transport.wait_readable()  # idle connections are here: a frame of ours more would cost memory
                else:
                    self.heard = True
                    events = self._parser.feed(data, _BUSY_BEFORE_CHECKPOINT)
                    self.limits.meters.received_bytes += len(data) - len(self._parser.rest)
                    for event in events:
                        if type(event) is Message:
                            self.count_messages(1)
                            if self.closing is None:
                                await self.session.receive(event)
                        elif type(event) is Close:
                            return self.close(event.code, event.reason)
                        elif type(event) is Ping or type(event) is Pong:
                            self._take_control(event)
                    if (error := self._parser.error) is not None:
                        return await self._refuse(error)
                    busy += 1 + len(events)
                    if busy >= _BUSY_BEFORE_CHECKPOINT:
                        busy = 0
                        await trio.lowlevel.checkpoint()
                data = self._parser.rest or transport.receive_nowait()
        except RemoteProtocolError as flood:
            await self._refuse(flood)

    async def _refuse(self, error: RemoteProtocolError) -> None:
        """Close and read on, so that the peer gets our last frame (RFC 6455 §7.1.1): until its end, or the deadline."""
        self.close(error.close_code, str(error))
        self._half_close = True
        if self.outbox is None:
            self.transport.send_eof()
        await discard(self.transport)

    def count_messages(self, messages: int) -> None:
        """The peer has sent so many.

        Raises:
            RemoteProtocolError: that is more than it may.
        """
        self._messages += messages
        if self._messages >= self.limits.counted_together:
            limits, now = self.limits, trio.current_time()
            self._messages_full_at = limits.message_rate.spend(self._messages_full_at, now, self._messages)
            self._messages = 0
            if self._messages_full_at == math.inf:
                rate, burst = limits.settings.max_message_rate, limits.settings.message_burst
                raise RemoteProtocolError(
                    f"more than max_message_rate={rate:g}/s, burst {burst}; send less", CloseCode.POLICY_VIOLATION
                )

    def _take_control(self, event: Ping | Pong) -> None:
        limits, now = self.limits, trio.current_time()
        self._control_full_at = limits.control_rate.spend(self._control_full_at, now)
        if self._control_full_at == math.inf:
            rate, burst = limits.settings.max_control_rate, limits.settings.control_burst
            raise RemoteProtocolError(
                f"more pings than max_control_rate={rate:g}/s, burst {burst}; send fewer", CloseCode.POLICY_VIOLATION
            )
        if type(event) is Ping:
            self._send_pong(event.payload)

    def send(self, batch: Batch) -> None:
        """Send whole frames: now, or from the outbox. Never blocks, never raises for a bad peer."""
        if (send_nowait := self._straight) is not None:
            try:
                sent = send_nowait(batch.data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.limits.meters.sent_bytes -= len(batch.data)
                self.abort()
                return batch.give_up()
            if sent != len(batch.data):
                self._begin_outbox(batch, sent)
        else:
            self.queue(self.outbox, batch)

    def send_frame(self, frame: bytes) -> None:
        """Send a frame that is no message of a room."""
        self.limits.meters.sent_bytes += len(frame)
        self.send(single(CONTROL, frame))

    def _begin_outbox(self, batch: Batch, sent: int) -> None:
        self.limits.meters.sent_bytes -= len(batch.data) - sent
        self._straight = None
        outbox = self.outbox = self.new_outbox()
        outbox.begin(batch, sent, trio.current_time())
        # Cancelling the connection must not tear a frame, nor keep the close frame back: the writer has
        # a scope of its own, whose deadline `close` and `stop` set.
        self._writing = trio.CancelScope(shield=True)
        self.nursery.start_soon(self._write, outbox, self._writing)
        self.limits.budget.relieve()

    def new_outbox(self) -> Outbox:
        """An empty queue with this connection's bounds."""
        settings = self.limits.settings
        outbox = Outbox(settings.max_outbox_messages, settings.max_outbox_bytes, self.limits.budget, self.id)
        self.limits.budget.open(outbox, partial(self._make_room, outbox))
        return outbox

    def queue(self, outbox: Outbox | None, batch: Batch) -> None:
        """Let ``batch`` wait, here or with a member that still joins; if that is too much, close the connection."""
        self.limits.meters.sent_bytes -= len(batch.data)
        if outbox is None or self.closing is not None:
            return batch.give_up()
        if outbox.offer(batch, trio.current_time()) is Verdict.OVERFLOW:
            self._drop_slow_consumer(outbox, SlowConsumer.OVERFLOW, "read faster or ask for less")
        self.limits.budget.relieve()

    def _make_room(self, outbox: Outbox) -> None:
        self._drop_slow_consumer(outbox, SlowConsumer.MEMORY, "the most of all as max_queued_bytes ran out")

    def _drop_slow_consumer(self, outbox: Outbox, cause: SlowConsumer, advice: str) -> None:
        """Forget what waits in ``outbox`` and close with 4108, saying how much that was."""
        lag = outbox.lag(trio.current_time())
        waits = f"{lag.messages} messages, {lag.queued_bytes} bytes queued for {lag.age:.1f} s"
        reason = f"slow consumer: {waits}; {advice}"
        outbox.clear(cause, keep_control=self.closing is not None)  # then there is a close frame
        if self.closing is None:
            log.info("%s: %s", self.id, reason, extra={"connection": self.id, "code": CloseCode.SLOW_CONSUMER})
            outbox.count_slow_consumer()
            self.limits.meters.slow_consumers[cause] += 1
            self.close(CloseCode.SLOW_CONSUMER, reason)

    def seal(self, feed: Feed) -> None:
        """What waits of ``feed`` belongs to a membership that is over."""
        if self.outbox is not None:
            self.outbox.seal(feed)

    def lag(self) -> Lag:
        """How far the peer is behind."""
        return NO_LAG if self.outbox is None else self.outbox.lag(trio.current_time())

    def _send_pong(self, payload: bytes) -> None:
        # While the outbox waits only the latest ping is owed an answer (RFC 6455 §5.5.3), so that a
        # flood of pings from a peer that reads nothing costs one pong, not memory.
        if self.outbox is not None:
            self._pong = payload
        else:
            self.send_frame(encode_frame(Opcode.PONG, payload))

    async def _write(self, outbox: Outbox, scope: trio.CancelScope) -> None:
        timeout = self.limits.settings.write_timeout
        try:
            with scope:
                while outbox or self._pong is not None:
                    if self._pong is not None and self.closing is None:
                        outbox.force(encode_frame(Opcode.PONG, self._pong), trio.current_time())
                    self._pong = None
                    with trio.move_on_after(timeout) as step:
                        await self.transport.send_from(outbox)
                    self.limits.meters.sent_bytes += outbox.take_written()
                    if step.cancelled_caught:
                        self._drop_slow_consumer(outbox, SlowConsumer.WRITE_TIMEOUT, f"nothing read for {timeout:g} s")
        except GONE:
            self.abort()
        finally:
            self.limits.meters.sent_bytes += outbox.take_written()
            if outbox:
                self.transport.give_up()
            outbox.discard()
            self.outbox = self._writing = None
        self._straight = self.transport.send_nowait if self.closing is None else None
        if self._half_close:
            self.transport.send_eof()

    def ping(self) -> None:
        """Ask the peer for a sign of life; `heard` tells whether one came."""
        self.heard = False
        self.send_frame(_PING)

    def close(self, code: int, reason: str = "", *, farewell: bytes = b"") -> None:
        """Begin the closing handshake (RFC 6455 §7.1.2), behind a last frame; the first call counts. Never blocks."""
        if self.closing is not None:
            return
        frame = farewell + encode_close(code, reason)
        if self.outbox is not None:
            self.outbox.force(frame, trio.current_time())
        else:
            self.send_frame(frame)
        if self.closing is None:  # else the send found the peer gone
            self.closing = Close(code, reason)
            self._straight = None
            self._limit(self.limits.settings.close_timeout)

    def stop(self) -> None:
        """Close with 1001 and leave all rooms now; the peer has a moment to read what it was sent."""
        self.close(CloseCode.GOING_AWAY, "the server stops")
        self._limit(_LAST_WORDS_TIMEOUT)
        self.nursery.cancel_scope.cancel()

    def abort(self) -> None:
        """Drop the connection without a handshake."""
        if self.closing is None:
            self.closing = Close(CloseCode.ABNORMAL, "connection lost")
        self._straight = None
        self._limit(0)
        self.nursery.cancel_scope.cancel()

    def _limit(self, timeout: float) -> None:
        for scope in (self.nursery.cancel_scope, self._writing):
            if scope is not None:
                scope.deadline = min(scope.deadline, trio.current_time() + timeout)

    def put_out(self, member: Member, reason: str) -> None:
        """Take ``member`` out of its room; the session decides what that means for the connection."""
        self.session.put_out(member, reason)

    def hook_failed(self, hook: str, error: ExceptionGroup[Exception], room: str) -> None:
        """A hook raised: log it, and end this connection only."""
        self.close(*log_failure(self.id, hook, error, room))
