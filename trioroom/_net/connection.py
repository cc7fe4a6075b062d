"""One WebSocket connection: its reader, its straight sends, its outbox and writer.

The reader is the connection's own task. Whoever has a frame for the peer sends it at once; only
what the kernel refuses goes to an outbox, opened at that moment together with a writer task that
is then the only one to send until the outbox is empty. Closing sends a close frame through the
same path and gives the connection a deadline; it ends when the peer answers or the deadline comes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import trio

from trioroom._core.causes import first_of
from trioroom._core.outbox import Outbox, Verdict
from trioroom._net.transport import discard
from trioroom._wire.frames import Close, FrameParser, Opcode, Ping, encode_close, encode_frame
from trioroom._wire.message import Message
from trioroom.closecodes import CloseCode
from trioroom.errors import BackplaneUnavailable

if TYPE_CHECKING:
    from trioroom._net.transport import Transport
    from trioroom._wire.encoding import Encoding
    from trioroom._wire.http import Request
    from trioroom.member import Member
    from trioroom.settings import Settings

log = logging.getLogger("trioroom.connection")
_READS_BEFORE_CHECKPOINT = 16  # a peer that never lets up must let others run
_LAST_WORDS_TIMEOUT = 1.0  # seconds a cancelled connection may take to send its close frame
_WRITE_BYTES = 262_144  # chunks the writer joins for one system call
UNAVAILABLE = "the link to the other servers is down; come back later"
GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Session(Protocol):
    """What the bytes of a connection mean: plain or v1."""

    async def open(self) -> None: ...
    async def receive(self, message: Message) -> None: ...
    async def aclose(self, reason: str) -> None: ...
    def put_out(self, member: Member, reason: str) -> None: ...


class Connection:
    """Owned by the task that called `run`; over when that returns."""

    __slots__ = (
        "_half_close", "_parser", "_pong", "_settings", "_straight", "_writing", "closing", "encoding", "heard", "id",
        "nursery", "outbox", "request", "session", "transport",
    )  # fmt: skip

    nursery: trio.Nursery
    session: Session

    def __init__(self, id: str, transport: Transport, request: Request, encoding: Encoding, settings: Settings) -> None:
        self.id = id
        self.transport = transport
        self.request = request
        self.encoding = encoding
        self.outbox: Outbox | None = None
        self.closing: Close | None = None
        self.heard = True  # something came since the heartbeat last asked
        self._writing: trio.CancelScope | None = None  # of the writer task, while there is one
        self._pong: bytes | None = None
        # The transport's non-blocking send, while nobody else sends and nothing waits; else None.
        self._straight: Callable[[bytes], int] | None = transport.send_nowait
        self._half_close = False  # the writer ends our side once it has sent all
        self._settings = settings
        self._parser = FrameParser(
            settings.max_message_bytes, settings.max_fragments, inflate=encoding.window_bits is not None
        )

    async def run(self, session: Session, early: bytes) -> None:
        """Serve until the connection is over. ``early`` is what came right behind the handshake."""
        self.session = session
        async with trio.open_nursery() as self.nursery:
            try:
                await session.open()
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
        reads = 0
        while data != b"":
            if data is None:
                reads = 0
                await transport.wait_readable()  # idle connections are here: each frame of ours would cost memory
            else:
                self.heard = True
                for event in self._parser.feed(data):
                    if type(event) is Message:
                        if self.closing is None:
                            await self.session.receive(event)
                    elif type(event) is Ping:
                        self._send_pong(event.payload)
                    elif type(event) is Close:
                        return self.close(event.code, event.reason)
                if (error := self._parser.error) is not None:
                    self.close(error.close_code, str(error))
                    return await self._linger()
                reads += 1
                if reads == _READS_BEFORE_CHECKPOINT:
                    reads = 0
                    await trio.lowlevel.checkpoint()
            data = transport.receive_nowait()

    async def _linger(self) -> None:
        """Read on after our last frame, so that the peer gets it (RFC 6455 §7.1.1): until its end, or the deadline."""
        self._half_close = True
        if self.outbox is None:
            self.transport.send_eof()
        await discard(self.transport)

    def send(self, data: bytes, messages: int = 1) -> None:
        """Send whole frames: now, or from the outbox. Never blocks, never raises for a bad peer."""
        if (send_nowait := self._straight) is not None:
            try:
                sent = send_nowait(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return self.abort()
            if sent == len(data):
                return
            self._queue_rest(data, sent, messages)
        elif self.closing is None and self.outbox is not None and self.outbox.offer(data, messages) is Verdict.OVERFLOW:
            self.drop_slow_consumer(self.outbox)

    def _queue_rest(self, data: bytes, sent: int, messages: int) -> None:
        self._straight = None
        self.outbox = self.new_outbox()
        self.outbox.begin(data, sent, messages)
        # Cancelling the connection must not tear a frame, nor keep the close frame back: the writer has
        # a scope of its own, whose deadline `close` and `stop` set.
        self._writing = trio.CancelScope(shield=True)
        self.nursery.start_soon(self._write, self.outbox, self._writing)

    def new_outbox(self) -> Outbox:
        """An empty queue with this connection's bounds."""
        settings = self._settings
        return Outbox(settings.max_outbox_bytes, settings.max_outbox_messages, trio.current_time())

    def drop_slow_consumer(self, outbox: Outbox) -> None:
        """``outbox`` is full: forget what it holds and close with 4108, saying how much that was."""
        reason = (
            f"slow consumer: {outbox.messages} messages, {outbox.queued_bytes} bytes queued for "
            f"{trio.current_time() - outbox.since:.1f} s; read faster or ask for less"
        )
        log.info("%s: %s", self.id, reason)
        outbox.clear()
        self.close(CloseCode.SLOW_CONSUMER, reason)

    def _send_pong(self, payload: bytes) -> None:
        # While the outbox waits only the latest ping is owed an answer (RFC 6455 §5.5.3), so that a
        # flood of pings from a peer that reads nothing costs one pong, not memory.
        if self.outbox is not None:
            self._pong = payload
        else:
            self.send(encode_frame(Opcode.PONG, payload), 0)

    async def _write(self, outbox: Outbox, scope: trio.CancelScope) -> None:
        try:
            with scope:
                while outbox or self._pong is not None:
                    if self._pong is not None and self.closing is None:
                        outbox.force(encode_frame(Opcode.PONG, self._pong))
                    self._pong = None
                    await self.transport.send_all(outbox.take(_WRITE_BYTES))
        except GONE:
            self.abort()
        self.outbox = self._writing = None
        self._straight = self.transport.send_nowait if self.closing is None else None
        if self._half_close:
            self.transport.send_eof()

    def ping(self) -> None:
        """Ask the peer for a sign of life; `heard` tells whether one came."""
        self.heard = False
        self.send(encode_frame(Opcode.PING, b""), 0)

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake (RFC 6455 §7.1.2); the first call counts. Never blocks."""
        if self.closing is not None:
            return
        frame = encode_close(code, reason)
        if self.outbox is not None:
            self.outbox.force(frame)
        else:
            self.send(frame, 0)
        if self.closing is None:  # else the send found the peer gone
            self.closing = Close(code, reason)
            self._straight = None
            self._limit(self._settings.close_timeout)

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

    def hook_failed(self, hook: str, error: ExceptionGroup[Exception]) -> None:
        """A hook raised: log it, with its traceback if that is its own fault, and end this connection only."""
        if is_unavailable(error):
            log.debug("%s: %s failed: %s", self.id, hook, first_of(error))  # the backplane has said so once for all
            self.close(CloseCode.TRY_AGAIN_LATER, UNAVAILABLE)
        else:
            log.error("%s: %s failed", self.id, hook, exc_info=error)
            self.close(CloseCode.INTERNAL_ERROR, f"{hook} failed; the server's log tells more")


def is_unavailable(error: ExceptionGroup[Exception]) -> bool:
    """Whether it is all because the backplane cannot be reached now."""
    return error.split(BackplaneUnavailable)[1] is None
