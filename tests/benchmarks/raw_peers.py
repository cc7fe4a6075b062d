"""WebSocket peers by the thousand in one process: raw sockets under one epoll, of what comes only heads are read.

Messages carry the time they were sent (`stamped`), so that whoever gets one knows how long it took.
"""

from __future__ import annotations

import heapq
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from itertools import count

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
READ_BYTES = 65_536
STAMP = struct.Struct("<d")


def upgrade(path: str, headers: str = "") -> bytes:
    """The request that opens a connection; each line of ``headers`` ends with CRLF."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    ).encode()


def frame(payload: bytes, first: int = FIN | BINARY) -> bytes:
    """A client's frame. Its mask is zeros, which spares us masking; the server unmasks all the same."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, FIN | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, FIN | 126, size)
    else:
        head = struct.pack("!BBQ", first, FIN | 127, size)
    return head + bytes(4) + payload


def split(data: bytes) -> tuple[list[tuple[int, int, int]], bytes]:
    """The server's frames that are whole in ``data``, as opcode, start and end of the payload; and the bytes left."""
    found = []
    at, end = 0, len(data)
    while end - at >= 2:
        length, start = data[at + 1], at + 2
        if length == 126:
            length, start = int.from_bytes(data[start : start + 2], "big"), start + 2
        elif length == 127:
            length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        if end < start + length:  # also when the length itself is cut: it lies before the start
            break
        found.append((data[at] & 0xF, start, start + length))
        at = start + length
    return found, data[at:]


def close_code(payload: bytes) -> str:
    """What a close frame says."""
    return str(int.from_bytes(payload[:2], "big")) if payload else "1005"


def stamped(size: int) -> bytes:
    """A message of ``size`` bytes that says when it was sent."""
    return STAMP.pack(time.perf_counter()).ljust(size, b"\0")


def open_socket(port: int, path: str, *, receive_buffer: int = 0, headers: str = "") -> tuple[socket.socket, bytes]:
    """A connection to ``path``, not blocking, and what came behind the handshake. 0 is the kernel's own buffer."""
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(10)
    sock.connect(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(upgrade(path, headers))
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = sock.recv(READ_BYTES)
        if not data:
            raise SystemExit(f"no connection to {path}: {answer.decode() or 'closed'}")
        answer += data
    if not answer.startswith(b"HTTP/1.1 101 "):
        raise SystemExit(f"no connection to {path}: {answer.decode()}")
    sock.setblocking(False)
    return sock, answer.partition(b"\r\n\r\n")[2]


class Latencies:
    """How long messages took, counted by hundredths of a millisecond."""

    def __init__(self) -> None:
        self.total = 0
        self._counts: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """One message came."""
        self.total += 1
        self._counts[int(seconds * 1e5)] += 1

    def clear(self) -> None:
        """Begin anew."""
        self.total = 0
        self._counts.clear()

    def quantile(self, share: float) -> float:
        """Milliseconds that ``share`` of the messages took at most; 1 is the longest."""
        left = self.total * share
        for hundredths in sorted(self._counts):
            left -= self._counts[hundredths]
            if left <= 0:
                return hundredths / 100
        return 0.0


class Peer:
    """A member that reads all it gets and answers pings."""

    __slots__ = ("_latencies", "_rest", "ended", "socket")

    def __init__(self, sock: socket.socket, rest: bytes, latencies: Latencies) -> None:
        self.socket = sock
        self.ended: str | None = None  # the close code, or "cut off"
        self._rest = rest
        self._latencies = latencies

    def send(self, frames: bytes) -> None:
        """Whole frames, at once: a server that does not take a few small ones is not there any more."""
        try:
            sent = self.socket.send(frames)
        except OSError:
            self.ended = self.ended or "cut off"
        else:
            if sent < len(frames):
                raise SystemExit("the server reads too slowly for this load; ask for less")

    def read(self) -> None:
        """Take in what came. Call it when something has, and no more once `ended`."""
        try:
            data = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.ended = self.ended or "cut off"
            return
        now = time.perf_counter()
        if self._rest:
            data = self._rest + data
        found, self._rest = split(data)
        for opcode, start, end in found:
            if opcode < CLOSE:
                self._latencies.add(now - STAMP.unpack_from(data, start)[0])
            elif opcode == PING:
                self.send(frame(data[start:end], FIN | PONG))
            elif opcode == CLOSE:
                self.ended = close_code(data[start:end])
                self.send(frame(data[start:end], FIN | CLOSE))


class Swarm:
    """Peers under one epoll, and what has to be done from time to time."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.latencies = Latencies()
        self._epoll = select.epoll()
        self._by_file: dict[int, Peer] = {}
        self._timers: list[tuple[float, int, float, Callable[[], object]]] = []  # due, a tie-breaker, interval, what
        self._numbers = count()

    def join(self, port: int, path: str, members: int) -> list[Peer]:
        """Open so many connections."""
        joined = [Peer(*open_socket(port, path), self.latencies) for _ in range(members)]
        for peer in joined:
            self._by_file[peer.socket.fileno()] = peer
            self._epoll.register(peer.socket, select.EPOLLIN)
        self.peers += joined
        return joined

    def every(self, interval: float, fn: Callable[[], object]) -> None:
        """Call ``fn`` each ``interval`` seconds while the swarm runs; what was missed is made up for."""
        heapq.heappush(self._timers, (time.perf_counter() + interval, next(self._numbers), interval, fn))

    def forget(self, fn: Callable[[], object]) -> None:
        """Call ``fn`` no more."""
        self._timers = [timer for timer in self._timers if timer[3] != fn]
        heapq.heapify(self._timers)

    def run(self, seconds: float, done: Callable[[], bool] = lambda: False) -> None:
        """Drive the peers for so long, or until ``done``, which is asked after each turn and may publish."""
        deadline = time.perf_counter() + seconds
        while (now := time.perf_counter()) < deadline and not done():
            until = deadline
            if self._timers:
                while self._timers[0][0] <= now:
                    due, number, interval, fn = self._timers[0]
                    heapq.heapreplace(self._timers, (due + interval, number, interval, fn))
                    fn()
                until = min(deadline, self._timers[0][0])
            for file, _ in self._epoll.poll(max(0.0, until - time.perf_counter()), 256):
                peer = self._by_file[file]
                peer.read()
                if peer.ended is not None:
                    self._epoll.unregister(file)

    def close(self) -> None:
        """Cut all connections."""
        self._epoll.close()
        for peer in self.peers:
            peer.socket.close()
