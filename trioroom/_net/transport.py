"""Where a connection's bytes go: a kernel socket, or any ``trio.abc.Stream`` (TLS, in memory)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Protocol

import trio

from trioroom._net.readiness import Readiness

RECEIVE_BYTES = 65_536
"""One read; the largest message of the default settings fits."""
_READS_BEFORE_CHECKPOINT = 16  # a peer that never lets up must let others run


class Transport(Protocol):
    """One reader and one writer at a time."""

    @property
    def parked(self) -> bool:
        """Whether the reader waits for the peer (rather than being busy with a message)."""
        ...

    @property
    def send_nowait(self) -> Callable[[bytes], int]:
        """Bytes taken at once, maybe 0 (or BlockingIOError); OSError when the peer is gone."""
        ...

    async def send_all(self, data: bytes) -> None:
        """Send all of ``data``; OSError or trio.BrokenResourceError when the peer is gone."""
        ...

    async def receive(self) -> bytes:
        """Some bytes; empty when the peer sends no more."""
        ...

    def send_eof(self) -> None:
        """Say that no more comes, where the transport can."""
        ...

    async def aclose(self) -> None:
        """Give the transport up at once, without politeness."""
        ...


class SocketTransport:
    """A non-blocking kernel socket, woken by a `Readiness`."""

    __slots__ = ("_readiness", "_reads", "hung_up", "reader", "ready", "send_nowait", "socket")

    def __init__(self, sock: socket.socket, readiness: Readiness) -> None:
        self.socket = sock
        self.send_nowait = sock.send  # the system call itself: fan-out spends its time there
        self.ready = True  # try first: the request often came with the connection
        self.hung_up = False
        self.reader: trio.lowlevel.Task | None = None
        self._reads = 0
        self._readiness = readiness
        readiness.register(self)

    @property
    def parked(self) -> bool:
        return self.reader is not None

    async def send_all(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.socket.send(rest) :]
            except BlockingIOError:
                pass
            if rest:
                await trio.lowlevel.wait_writable(self.socket)
            else:
                await trio.lowlevel.checkpoint()

    def stop_waiting(self, _: object) -> trio.lowlevel.Abort:
        """The reader, parked by the readiness source, is cancelled."""
        self.reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def receive(self) -> bytes:
        while True:
            if not self.ready:
                self._reads = 0
                await self._readiness.wait_readable(self)
            elif self._reads >= _READS_BEFORE_CHECKPOINT:
                self._reads = 0
                await trio.lowlevel.checkpoint()
            try:
                data = self.socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                self.ready = False
                continue
            # A short read has emptied the socket, and new bytes are a new edge: no EAGAIN needed.
            # An end that came along with these bytes makes no new edge, hence hung_up.
            if len(data) < RECEIVE_BYTES and not self.hung_up:
                self.ready = False
            self._reads += 1
            return data

    def send_eof(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        self._readiness.unregister(self)
        self.socket.close()


class StreamTransport:
    """Any byte stream. It takes nothing at once, so all goes through the outbox and its writer."""

    __slots__ = ("_stream", "parked")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.parked = False

    def send_nowait(self, data: bytes) -> int:
        return 0

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        self.parked = True
        try:
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        except trio.BrokenResourceError as exc:
            raise ConnectionResetError("the stream broke") from exc
        finally:
            self.parked = False

    def send_eof(self) -> None:
        """TLS has no half-close; the peer sees the end when the stream closes."""

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)

