"""Members by the thousand in one process, who come back as they are told, and check that they miss nothing."""

from __future__ import annotations

import errno
import heapq
import os
import random
import select
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import attrs
import msgspec

from tests.benchmarks.raw_peers import CLOSE, FIN, PING, PONG, READ_BYTES, TEXT, frame, split, upgrade

HEADERS = "Sec-WebSocket-Protocol: trioroom.v1.json\r\n"
STALLED_BUFFER = 2_304  # bytes, the smallest that Linux has
_BACKOFF = (0.05, 0.5)  # seconds between which a member without a bye comes back
_CONNECTING_AT_ONCE = 64  # while the crowd assembles


@attrs.define(eq=False)
class Member:
    """One of them, over all its connections."""

    stalls: bool
    socket: socket.socket | None = None
    asked: bool = False
    upgraded: bool = False
    joined: bool = False
    rest: bytes = b""
    after: tuple[float, float] | None = None
    """What the last ``bye`` said."""
    epoch: str = ""
    offset: int = 0
    """Of the last message."""
    lost: int = 0
    duplicates: int = 0


@attrs.define
class Counts:
    """Of all of them together."""

    recovered: int = 0
    not_recovered: int = 0
    gaps: int = 0
    failed_tries: int = 0
    codes: Counter[str] = attrs.field(factory=Counter)
    returns: list[float] = attrs.field(factory=list)
    """When each began to connect again."""


class Crowd:
    """Members of one room of the server on ``port``; call `run`."""

    def __init__(self, port: int, room: str, members: int, stalled: int) -> None:
        self.counts = Counts()
        self.comes_back = True
        self.members = [Member(stalls=number < stalled) for number in range(members)]
        self._port = port
        self._room = room
        self._epoll = select.epoll()
        self._by_file: dict[int, Member] = {}
        self._due: list[tuple[float, int, Member]] = []
        self._offsets: dict[bytes, int] = {}  # of messages, which are the same bytes for all

    @property
    def readers(self) -> list[Member]:
        """Those who do not stall."""
        return [member for member in self.members if not member.stalls]

    def assemble(self, timeout: float) -> None:
        """Let all join, some at a time."""
        missing = list(self.members)
        coming: list[Member] = []

        def all_joined() -> bool:
            coming[:] = [member for member in coming if not member.joined]
            while missing and len(coming) < _CONNECTING_AT_ONCE:
                coming.append(missing.pop())
                self._connect(coming[-1])
            return not coming

        self.run(timeout, all_joined, "all to join")

    def run(self, timeout: float, done: Callable[[], bool], what: str) -> None:
        """Read, and come back, until ``done``, which is asked a hundred times a second."""
        deadline, look = time.monotonic() + timeout, 0.0
        while True:
            now = time.monotonic()
            if now >= look:
                if done():
                    return
                look = now + 0.01
            if now > deadline:
                raise SystemExit(f"waited {timeout:g} s for {what}: {self.counts}")
            while self._due and self._due[0][0] <= now:
                self._connect(heapq.heappop(self._due)[2])
                self.counts.returns.append(now)
            until = min(look, self._due[0][0]) if self._due else look
            for file, _ in self._epoll.poll(max(0.0, until - now), 256):
                self._advance(file)

    def close(self) -> None:
        """Cut all connections."""
        self._epoll.close()
        for member in self.members:
            if member.socket is not None:
                member.socket.close()

    def _connect(self, member: Member) -> None:
        sock = member.socket = socket.socket()
        if member.stalls:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STALLED_BUFFER)
        sock.setblocking(False)
        member.asked = member.upgraded = member.joined = False
        member.rest, member.after = b"", None
        failed = sock.connect_ex(("127.0.0.1", self._port))
        self._by_file[sock.fileno()] = member
        self._epoll.register(sock, select.EPOLLOUT)
        if failed not in (0, errno.EINPROGRESS):
            self._lose(member, os.strerror(failed))

    def _advance(self, file: int) -> None:
        member = self._by_file.get(file)
        if member is None or member.socket is None:
            return
        try:
            if not member.asked:
                return self._ask(member)
            data = member.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as exc:
            return self._lose(member, os.strerror(exc.errno or 0))
        if not data:
            return self._lose(member, "the end")
        self._take(member, member.rest + data)

    def _ask(self, member: Member) -> None:
        """The connection is there, or could not be made: send the handshake."""
        assert member.socket is not None
        if error := member.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
        member.socket.sendall(upgrade("/", HEADERS))
        member.asked = True
        self._epoll.modify(member.socket, select.EPOLLIN)

    def _take(self, member: Member, data: bytes) -> None:
        if not member.upgraded:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                member.rest = head
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                return self._lose(member, head[:12].decode())
            member.upgraded = True
        frames, member.rest = split(data)
        for opcode, start, end_ in frames:
            if opcode == TEXT:
                self._take_envelope(member, data[start:end_])
            elif opcode == PING:
                self._send(member, frame(data[start:end_], FIN | PONG))
            elif opcode == CLOSE:
                self.counts.codes[str(int.from_bytes(data[start : start + 2], "big"))] += 1
                self._send(member, frame(data[start : start + 2], FIN | CLOSE))

    def _take_envelope(self, member: Member, payload: bytes) -> None:
        if (offset := self._offsets.get(payload)) is not None:
            return self._take_message(member, offset)
        envelope = msgspec.json.decode(payload)
        match envelope["type"]:
            case "hello":
                position = {"epoch": member.epoch, "offset": member.offset} if member.epoch else None
                join = {"type": "join", "id": 1, "room": self._room, "position": position}
                self._send(member, frame(msgspec.json.encode(join), FIN | TEXT))
            case "ok":
                self._take_joined(member, envelope)
            case "message":
                self._offsets[payload] = envelope["offset"]
                self._take_message(member, envelope["offset"])
            case "gap":
                self.counts.gaps += 1
            case "bye":
                member.after = tuple(envelope["after"])
            case _:
                raise SystemExit(f"unexpected: {envelope}")

    def _take_joined(self, member: Member, answer: dict[str, object]) -> None:
        position = answer["position"]
        assert isinstance(position, dict)
        if not member.epoch:
            member.epoch, member.offset = position["epoch"], position["offset"]
        elif answer["recovered"]:
            self.counts.recovered += 1
        else:
            self.counts.not_recovered += 1
        member.joined = True
        if member.stalls:
            assert member.socket is not None
            self._epoll.unregister(member.socket)

    def _take_message(self, member: Member, offset: int) -> None:
        if offset <= member.offset:
            member.duplicates += 1
        else:
            member.lost += offset - member.offset - 1
            member.offset = offset

    def _send(self, member: Member, data: bytes) -> None:
        assert member.socket is not None
        with suppress(OSError):  # the end is read next
            member.socket.sendall(data)

    def _lose(self, member: Member, reason: str) -> None:
        """It is over with this connection; another one comes in the member's slot, if they are to come back."""
        assert member.socket is not None
        if not member.joined:
            self.counts.failed_tries += 1
            self.counts.codes[reason] += 1
        del self._by_file[member.socket.fileno()]
        self._epoll.unregister(member.socket)
        member.socket.close()
        member.socket = None
        if not self.comes_back:
            return
        after = random.uniform(*(member.after or _BACKOFF))
        heapq.heappush(self._due, (time.monotonic() + after, id(member), member))
