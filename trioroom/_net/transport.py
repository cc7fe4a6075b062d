"""Where a connection's bytes go: a kernel socket, or any ``trio.abc.Stream`` (TLS, in memory)."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from trioroom._core.outbox import Outbox
from trioroom._net.readiness import Readiness

RECEIVE_BYTES = 16_384
"""One read. Of a flood a few messages are served at a time and the rest is put back, which copies it."""
MAX_DISCARDED = 4 << 20
"""Bytes of a peer we have parted with that are read, to get our last ones through: what sockets hold at most."""
_WRITE_BYTES = 16_384  # of an outbox for one system call: what is in the writer's hand is beyond bounds and policies
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time, so that closing sends a reset (socket(7))
_WRITES = 16  # such calls between two waits, while the peer takes all


class Transport(Protocol):
    """One reader and one writer at a time."""

    @property
    def parked(self) -> bool:
        """Whether the reader waits for the peer (rather than being busy with a message)."""
        ...

    def address(self) -> str | None:
        """The IP address at the other end, if there is one and it is still known."""
        ...

    @property
    def send_nowait(self) -> Callable[[bytes], int]:
        """Bytes taken at once, maybe 0 (or BlockingIOError); OSError when the peer is gone."""
        ...

    async def send_all(self, data: bytes) -> None:
        """Send all of ``data``; OSError or trio.BrokenResourceError when the peer is gone."""
        ...

    async def send_from(self, outbox: Outbox) -> None:
        """Wait until the peer takes more, and send it some of ``outbox``; errors as with `send_all`."""
        ...

    def receive_nowait(self) -> bytes | None:
        """Some bytes; empty when the peer sends no more; None when there are none yet: `wait_readable`."""
        ...

    def wait_readable(self) -> Awaitable[object]:
        """Until `receive_nowait`, which has just returned None, may have something else."""
        ...

    def send_eof(self) -> None:
        """Say that no more comes, where the transport can."""
        ...

    def has_unread(self) -> bool:
        """Whether the peer has said something that we have not read yet, as far as that can be known."""
        ...

    def give_up(self) -> None:
        """The peer takes nothing more: what it has not been sent is not to be kept for it after `aclose`."""
        ...

    async def aclose(self) -> None:
        """Give the transport up at once, without politeness."""
        ...


class SocketTransport:
    """A non-blocking kernel socket, woken by a `Readiness`."""

    __slots__ = ("_readiness", "hung_up", "reader", "ready", "send_nowait", "socket")

    def __init__(self, sock: socket.socket, readiness: Readiness) -> None:
        self.socket = sock
        self.send_nowait = sock.send  # the system call itself: fan-out spends its time there
        self.ready = True  # try first: the request often came with the connection
        self.hung_up = False
        self.reader: trio.lowlevel.Task | None = None
        self._readiness = readiness
        readiness.register(self)

    @property
    def parked(self) -> bool:
        return self.reader is not None

    def address(self) -> str | None:
        return _address_of(self.socket)

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

    async def send_from(self, outbox: Outbox) -> None:
        # First wait, then look what there is to send: thousands may wait here, and none holds bytes for that.
        await trio.lowlevel.wait_writable(self.socket)
        for _ in range(_WRITES):
            if not (data := outbox.head(_WRITE_BYTES)):
                return
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                return
            outbox.advance(sent)
            if sent < len(data):
                return

    def stop_waiting(self, _: object) -> trio.lowlevel.Abort:
        """The reader, parked by the readiness source, is cancelled."""
        self.reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    def receive_nowait(self) -> bytes | None:
        if not self.ready:
            return None
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            self.ready = False
            return None
        # A short read has emptied the socket, and new bytes are a new edge: no EAGAIN needed.
        # An end that came along with these bytes makes no new edge, hence hung_up.
        if len(data) < RECEIVE_BYTES and not self.hung_up:
            self.ready = False
        return data

    def wait_readable(self) -> Awaitable[object]:
        return self._readiness.wait_readable(self)

    def send_eof(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def has_unread(self) -> bool:
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def give_up(self) -> None:
        # Else the kernel goes on trying to deliver it for minutes, and holds the memory for that.
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    async def aclose(self) -> None:
        self._readiness.unregister(self)
        self.socket.close()


class AwaitedTransport:
    """A peer whose bytes are awaited, not polled for. It takes nothing at once: all goes through the outbox."""

    __slots__ = ("_received", "_torn")

    def __init__(self) -> None:
        self._received: bytes | None = None
        self._torn = False  # a send was cut off, and nobody knows where

    def address(self) -> str | None:
        """None: not every stream has one."""
        return None

    def send_nowait(self, data: bytes) -> int:
        return 0

    def receive_nowait(self) -> bytes | None:
        data, self._received = self._received, None
        return data

    async def wait_readable(self) -> None:
        self._received = await self._receive()

    def has_unread(self) -> bool:
        """Nothing is known of what has not been awaited."""
        return False

    def give_up(self) -> None:
        """A stream keeps nothing."""

    async def send_from(self, outbox: Outbox) -> None:
        if self._torn:
            raise trio.BrokenResourceError("a send was cut off; what followed would be read as its rest")
        self._torn = True
        data = outbox.head(_WRITE_BYTES)
        await self.send_all(data)
        outbox.advance(len(data))
        self._torn = False

    async def send_all(self, data: bytes) -> None:
        """See `Transport.send_all`."""
        raise NotImplementedError

    async def _receive(self) -> bytes:
        """Some bytes; empty when the peer sends no more."""
        raise NotImplementedError


class StreamTransport(AwaitedTransport):
    """Any byte stream."""

    __slots__ = ("_stream", "parked")

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__()
        self._stream = stream
        self.parked = False

    def address(self) -> str | None:
        stream = self._stream
        while isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        return _address_of(stream.socket) if isinstance(stream, trio.SocketStream) else None

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def _receive(self) -> bytes:
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


def _address_of(sock: socket.socket | trio.socket.SocketType) -> str | None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        return str(sock.getpeername()[0])
    except OSError:  # it is gone
        return None


async def receive(transport: Transport) -> bytes:
    """Some bytes; empty when the peer sends no more. For where a frame of the stack more costs nothing."""
    while (data := transport.receive_nowait()) is None:
        await transport.wait_readable()
    return data


async def discard(transport: Transport) -> None:
    """Read on to the peer's end: closing a socket with unread bytes would reset it, and take our last ones along.

    What was on its way is read, and no flood: one that had not ended after `MAX_DISCARDED` did not listen anyway.
    """
    discarded = 0
    while discarded < MAX_DISCARDED and (data := await receive(transport)):
        discarded += len(data)
        await trio.lowlevel.checkpoint()  # the peer may send faster than we read
