"""A server without a socket, and WebSocket peers that reach it through memory.

They work with ``trio.testing.MockClock``, so minutes of heartbeat pass in no time.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import trio
import trio.testing

from trioroom._wire.client_frames import encode_masked, take_frame
from trioroom._wire.frames import Close, Event, Opcode, Ping, Pong
from trioroom._wire.message import Data, Message
from trioroom.app import App
from trioroom.backplane.base import Backplane
from trioroom.closecodes import CloseCode
from trioroom.debug import lines_of_tasks
from trioroom.errors import ConnectionClosed
from trioroom.server import Server, open_server
from trioroom.settings import Settings
from trioroom.testing.beside import beside
from trioroom.testing.orphans import all_tasks

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider


_SETTINGS = Settings(ping_interval=math.inf, drain_timeout=2.0, close_timeout=1.0, leave_timeout=1.0)


class Peer:
    """A client's end of one connection; answers pings and close frames by itself unless told not to."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        """For bytes that no well-behaved peer would send."""
        self.answers = True
        """Whether pings and close frames are answered."""
        self.head = b""
        """The server's answer to the handshake."""
        self._received = b""
        self._close_sent = False
        self._sending = trio.Lock()  # a ping is answered by whoever receives, while another task may be sending

    async def send(self, data: str | bytes) -> None:
        """Send one message."""
        if isinstance(data, str):
            await self.send_frame(Opcode.TEXT, data.encode())
        else:
            await self.send_frame(Opcode.BINARY, data)

    async def send_json(self, *envelopes: dict[str, object]) -> None:
        """Send v1 envelopes in one frame: one as it is, several as an array."""
        await self.send(msgspec.json.encode(envelopes[0] if len(envelopes) == 1 else envelopes).decode())

    async def send_frame(self, opcode: int, payload: bytes = b"") -> None:
        """Send one masked frame, once those of other tasks are out."""
        try:
            self._sending.acquire_nowait()  # mostly free, and sending is a checkpoint itself: no other task comes first
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            await self.stream.send_all(encode_masked(opcode, payload))
        finally:
            self._sending.release()

    async def receive_event(self) -> Event:
        """The next frame, of any type.

        Raises:
            ConnectionClosed: the server ended the stream; 1006, as without a close frame.
        """
        while not (taken := take_frame(self._received)):
            data = await self._read()
            if not data:
                raise ConnectionClosed(CloseCode.ABNORMAL, "the stream ended", by_peer=True)
            self._received += data
        opcode, payload, self._received = taken
        return _to_event(opcode, payload)

    async def _read(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some())
        except trio.BrokenResourceError:
            return b""  # gone is gone, with or without a reset

    async def receive(self) -> Data:
        """The next message.

        Raises:
            ConnectionClosed: the server closed; code and reason are its own.
        """
        while True:
            event = await self.receive_event()
            if isinstance(event, Message):
                return event.data
            if isinstance(event, Ping):
                await self._answer(Opcode.PONG, event.payload)
            elif isinstance(event, Close):
                if not self._close_sent:
                    await self._answer(Opcode.CLOSE, b"" if event.code == 1005 else event.code.to_bytes(2, "big"))
                raise ConnectionClosed(event.code, event.reason, by_peer=True)

    async def _answer(self, opcode: int, payload: bytes) -> None:
        if self.answers:
            try:
                await self.send_frame(opcode, payload)
            except trio.BrokenResourceError:
                pass  # the server is gone by now, which the next read will tell

    async def receive_json(self) -> dict[str, object]:
        """The next message, decoded: a v1 envelope or an application's JSON."""
        decoded: dict[str, object] = msgspec.json.decode(str(await self.receive()))
        return decoded

    async def close(self, code: int = CloseCode.NORMAL) -> None:
        """Begin the closing handshake."""
        self._close_sent = True
        await self.send_frame(Opcode.CLOSE, code.to_bytes(2, "big"))


def _to_event(opcode: int, payload: bytes) -> Event:
    if opcode == Opcode.TEXT:
        return Message(payload.decode())
    if opcode == Opcode.BINARY:
        return Message(payload)
    if opcode == Opcode.PING:
        return Ping(payload)
    if opcode == Opcode.PONG:
        return Pong(payload)
    code = int.from_bytes(payload[:2], "big") if payload else CloseCode.NO_STATUS
    return Close(code, payload[2:].decode())


@asynccontextmanager
async def open_test_server(
    app: App,
    settings: Settings | None = None,
    *,
    backplane: Backplane | None = None,
    api_key: str | None = None,
    tracer_provider: TracerProvider | None = None,
    tcp: bool = False,
    timeout: float | None = None,
) -> AsyncIterator[Server]:
    """`trioroom.open_server` without a port, with deadlines that suit a test.

    Args:
        settings: None is short deadlines, and no pings: who does not read all the time would not answer them, while a
            virtual clock passes minutes.
        tcp: listen on a free port of 127.0.0.1 too, for what cannot come through memory: browsers, other programs,
            and peers so slow that the kernel's buffers are full, which memory never is.
        timeout: seconds after which the test is given up. None is ten minutes, and on a `trio.testing.MockClock`, where
            a test that hangs takes no time for it, a day.
    Raises:
        trio.TooSlowError: the body took longer than ``timeout``; tells where all tasks waited.
    """
    settings = settings or _SETTINGS
    async with (
        _giving_up_after(_patience() if timeout is None else timeout),
        open_server(
            app,
            "127.0.0.1" if tcp else None,
            port=0,
            settings=settings,
            backplane=backplane,
            api_key=api_key,
            tracer_provider=tracer_provider,
        ) as server,
    ):
        yield server


@asynccontextmanager
async def _giving_up_after(seconds: float) -> AsyncIterator[None]:
    """`trio.fail_after` that tells where the tasks were waiting then: once cancelled they do not any more."""
    tree: list[str] = []
    with trio.CancelScope() as body:

        async def watch(*, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await trio.sleep(seconds)
            tree.extend(await lines_of_tasks(list(all_tasks())))
            body.cancel()

        async with beside(watch):
            yield
    if body.cancelled_caught:
        raise trio.TooSlowError("\n".join([f"test given up after {seconds:,g} seconds; its tasks waited here:", *tree]))


def _patience() -> float:
    return 86_400.0 if isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock) else 600.0


@asynccontextmanager
async def open_peer(
    server: Server, path: str, *, subprotocol: str | None = None, tcp: bool = False
) -> AsyncIterator[Peer]:
    """A connection to ``server``, through memory or, where it listens, ``tcp``; leaving drops it without a close frame.

    Raises:
        ConnectionClosed: the server refused; the reason is its HTTP answer.
    """
    async with _reach(server, tcp) as stream:
        peer = Peer(stream)
        await _shake_hands(peer, path, subprotocol)
        yield peer


@asynccontextmanager
async def _reach(server: Server, tcp: bool) -> AsyncIterator[trio.abc.Stream]:
    if tcp:
        port = server.port  # tells where there is none
        async with await trio.open_tcp_stream(server.addresses[0][0], port) as stream:
            yield stream
        return
    ours, theirs = trio.testing.memory_stream_pair()
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        async with ours:
            try:
                yield ours
            except trio.Cancelled:
                raise
            except BaseException as exc:  # carried past the nursery, which would wrap it in a group
                failure = exc
                nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _shake_hands(peer: Peer, path: str, subprotocol: str | None) -> None:
    offer = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    await peer.stream.send_all(
        f"GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{offer}"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    received = b""
    while b"\r\n\r\n" not in received:
        received += (data := await peer._read())
        if not data:
            break
    head, _, rest = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 "):
        raise ConnectionClosed(CloseCode.ABNORMAL, received.decode(), by_peer=True)
    peer.head, peer._received = head, rest
