"""One connection that has been greeted: requests and their answers, what the server pushes, and whether it lives."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import trio
import trio_websocket

from trioroom._wire.envelopes import Bye, Cancel, Error, FromServer, Hello, Ok, Ping, Publish, Request
from trioroom.closecodes import CloseCode
from trioroom.errors import ConnectionClosed, Disconnected, LocalProtocolError, RemoteProtocolError, RequestRefused

if TYPE_CHECKING:
    from trio_websocket import WebSocketConnection

    from trioroom._wire.client_codec import ClientCodec
    from trioroom.client.dialing import WatchedStream

PING_INTERVAL = 25.0
"""Seconds of silence after which a server that does not ping is asked: it has said no others."""
PING_TIMEOUT = 10.0
"""Seconds within which anything at all has to come after a ``ping``."""

Make: TypeAlias = Callable[[int], Request]
"""The request with the id that the connection gives it."""
Answer: TypeAlias = Ok | Error | None
"""None: the connection was lost before."""
TakeAnswer: TypeAlias = Callable[[Answer], None]
Asked: TypeAlias = tuple[Make, TakeAnswer]


class Link:
    """Made when the server has said hello; its tasks run in the nursery of the connection.

    Answers are taken by plain functions, in the reader and in the order in which they came: what follows a join's
    ``ok`` is of the room already. What is to be sent is queued without waiting: all but fire-and-forget publications,
    which wait until they are written, has somebody who awaits the answer, and that bounds the queue.
    """

    def __init__(
        self, ws: WebSocketConnection, stream: WatchedStream, codec: ClientCodec, hello: Hello, nursery: trio.Nursery
    ) -> None:
        self.codec = codec
        self.nursery = nursery
        """Ends with the connection."""
        self.bye: Bye | None = None
        """What the server said when it was about to close."""
        self.opened_at = trio.current_time()
        self._ws = ws
        self._stream = stream
        self._max_message_bytes = hello.max_message_bytes
        self._ping_interval = PING_INTERVAL if hello.ping_interval is None else hello.ping_interval
        self._ids = itertools.count(1)
        self._answers: dict[int, TakeAnswer] = {}
        self._outgoing: deque[tuple[bytes, trio.Event | None]] = deque()
        self._work = trio.Event()
        self._resumed: trio.Event | None = None  # while reading pauses
        self._is_closing = False
        self._is_lost = False

    # -- requests -----------------------------------------------------------------------------------

    def ask_together(self, asked: Sequence[Asked]) -> list[int]:
        """Send requests in one frame, or in as few as the server takes; their ids.

        Raises:
            LocalProtocolError: a request is larger than the server takes; nothing was sent.
        """
        ids = [next(self._ids) for _ in asked]
        frames = self._frames([make(id) for id, (make, _) in zip(ids, asked, strict=True)])
        self._answers.update((id, take) for id, (_, take) in zip(ids, asked, strict=True))
        for frame in frames:
            self._queue(frame)
        self.resume()
        return ids

    async def ask(self, make: Make, *, cancels: bool = False) -> Ok:
        """Send a request and await its answer.

        Args:
            cancels: when cancelled, tell the server.
        Raises:
            RequestRefused: the server says so.
            Disconnected: the connection was lost before the answer.
            LocalProtocolError: the request is larger than the server takes.
        """
        answers: list[Answer] = []
        answered = trio.Event()

        def take(answer: Answer) -> None:
            answers.append(answer)
            answered.set()

        await trio.lowlevel.checkpoint_if_cancelled()
        if self._is_lost:
            raise Disconnected("the connection was lost")
        [id] = self.ask_together([(make, take)])
        try:
            await answered.wait()
        except trio.Cancelled:
            if self._answers.pop(id, None) is not None and cancels:
                self._queue(self.codec.encode([Cancel(id)]))
            raise
        return _ok_or_raise(answers[0])

    async def send(self, publication: Publish) -> None:
        """Send what has no answer; returns when it is written.

        Raises:
            Disconnected: the connection was lost before.
            LocalProtocolError: it is larger than the server takes.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        [frame] = self._frames([publication])
        written = trio.Event()
        if not self._is_lost:
            self._queue(frame, written)
            await written.wait()
        if self._is_lost:
            raise Disconnected("the connection was lost, and with it what nobody confirms")

    def _frames(self, requests: Sequence[Request]) -> list[bytes]:
        encoded = self.codec.encode(requests)
        if len(encoded) <= self._max_message_bytes:
            return [encoded]
        if len(requests) == 1:
            raise LocalProtocolError(
                f"a request of {len(encoded)} bytes exceeds max_message_bytes={self._max_message_bytes} of the server; "
                "send less at a time, or raise the limit there"
            )
        half = len(requests) // 2
        return self._frames(requests[:half]) + self._frames(requests[half:])

    def _queue(self, frame: bytes, written: trio.Event | None = None) -> None:
        self._outgoing.append((frame, written))
        self._work.set()

    # -- its tasks ----------------------------------------------------------------------------------

    async def write(self) -> None:
        """Send what is queued; the reader finds out when that is not possible any more."""
        try:
            while True:
                while self._outgoing:
                    frame, written = self._outgoing[0]
                    await self._ws.send_message(frame.decode() if self.codec.is_text else frame)
                    if self._is_lost:  # found out while this was on its way: nothing waits any more
                        return
                    self._outgoing.popleft()
                    if written is not None:
                        written.set()
                self._work = trio.Event()
                await self._work.wait()
        except trio_websocket.ConnectionClosed:
            pass

    async def read(self, take: Callable[[FromServer], Awaitable[None]]) -> None:
        """Give pushes to ``take`` and answers to who asked, until the connection ends with an error.

        Raises:
            RemoteProtocolError: the server says what is no envelope.
            trio_websocket.ConnectionClosed: the connection is closed.
        """
        while True:
            for envelope in self.codec.decode(await self._ws.get_message()):
                if isinstance(envelope, Ok | Error):
                    if isinstance(envelope.id, int) and (taker := self._answers.pop(envelope.id, None)) is not None:
                        taker(envelope)
                elif isinstance(envelope, Bye):
                    self.bye = envelope
                else:
                    await take(envelope)

    async def watch(self) -> None:
        """Ask whether the server is there when nothing has come for long.

        Raises:
            ConnectionClosed: nothing comes any more.
        """
        while True:
            await trio.sleep_until(self._stream.last_received + self._ping_interval)
            if self._resumed is not None:  # we do not read, so there is nothing to judge by
                await self._resumed.wait()
            asked_at = trio.current_time()
            if self._stream.last_received + self._ping_interval > asked_at:
                continue
            answered = trio.Event()
            self.ask_together([(Ping, lambda _: answered.set())])  # noqa: B023  # awaited before there is another one
            with trio.move_on_after(PING_TIMEOUT):
                await answered.wait()
            if self._stream.last_received < asked_at and self._resumed is None:
                silence = trio.current_time() - self._stream.last_received
                raise ConnectionClosed(CloseCode.ABNORMAL, f"nothing has come for {silence:g} s")

    # -- pausing ------------------------------------------------------------------------------------

    @property
    def has_to_read(self) -> bool:
        """Somebody waits for an answer, or for the end."""
        return bool(self._answers) or self._is_closing

    async def pause(self) -> None:
        """For the reader: until `resume` is called."""
        self._resumed = trio.Event()
        await self._resumed.wait()

    def resume(self) -> None:
        """There is room for messages, or somebody waits for an answer."""
        if self._resumed is not None:
            self._stream.last_received = trio.current_time()
            self._resumed.set()
            self._resumed = None

    # -- its end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Begin the closing handshake; the reader then ends."""
        self._is_closing = True
        self.resume()
        self.nursery.start_soon(self._ws.aclose)

    def lose(self) -> None:
        """It is over: nothing will be answered any more."""
        self._is_lost = True
        answers, self._answers = self._answers, {}
        for take in answers.values():
            take(None)
        for _, written in self._outgoing:
            if written is not None:
                written.set()
        self._outgoing.clear()


async def receive_hello(ws: WebSocketConnection, codec: ClientCodec) -> Hello:
    """The server's first envelope; it comes alone.

    Raises:
        RemoteProtocolError: it is another one.
        trio_websocket.ConnectionClosed: the connection was closed instead.
    """
    envelopes = codec.decode(await ws.get_message())
    match envelopes:
        case [Hello() as hello] if hello.version == 1:
            return hello
    raise RemoteProtocolError(f"the server began with {envelopes!r} and not with the hello of version 1")


def _ok_or_raise(answer: Answer) -> Ok:
    match answer:
        case Ok():
            return answer
        case Error():
            raise refusal(answer)
    raise Disconnected("the connection was lost before the answer; what was asked may have been done or not")


def refusal(error: Error) -> RequestRefused:
    """The error as the application gets it."""
    return RequestRefused(error.code, error.message, retry=error.retry, after=error.after, by_peer=True)
