"""Members that are raw v1 peers: they see what is on the wire, and go in every way there is."""

from __future__ import annotations

import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import attrs
import msgspec
import trio

from tests.benchmarks.raw_peers import upgrade
from tests.faults.clients import key_of
from tests.faults.crowd import Crowd
from tests.faults.records import Ended, Joined, MemberKind, Moved, Received, Record, Told
from tests.faults.rooms import token_for
from trioroom import ConnectionClosed
from trioroom._core.history import Position
from trioroom._wire.client_codec import CLIENT_CODECS
from trioroom._wire.client_frames import encode_masked
from trioroom._wire.envelopes import Error, FromServer, Gap, Join, Kicked, Ok, PositionChanged, Push, Request, Who
from trioroom._wire.frames import Opcode
from trioroom.testing import Peer

CODEC: Final = CLIENT_CODECS["json"]
HEADERS: Final = f"Sec-WebSocket-Protocol: {CODEC.subprotocol}\r\n"
GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed, trio.TooSlowError)
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
EXPECTED_ERRORS: Final = ("unavailable",)
EXPECTED_CODES: Final = (1000, 1001, 1006, 1012, 1013, 4101, 4108, 4110, 4201)
"""Close codes that faults may cause. 1011 is not among them: it says that the server has a bug."""
_STAY: Final = 6.0
"""Seconds until a raw peer leaves by itself, on average."""
_TOKEN_LASTS: Final = 40.0
_ANSWER_TIMEOUT: Final = 15.0


@attrs.define
class RawPeer:
    """One connection."""

    peer: Peer
    _waiting: list[FromServer] = attrs.field(factory=list)

    async def send(self, *requests: Request) -> None:
        """In one frame."""
        await self.peer.send(CODEC.encode(requests).decode())

    async def receive(self) -> FromServer:
        """The next envelope; ConnectionClosed at the end."""
        while not self._waiting:
            data = await self.peer.receive()
            assert isinstance(data, str), data
            self._waiting = CODEC.decode(data)
        return self._waiting.pop(0)

    def reset(self) -> None:
        """From now on leaving the context sends a RST."""
        stream = self.peer.stream
        assert isinstance(stream, trio.SocketStream)
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, RESET_ON_CLOSE)


@asynccontextmanager
async def open_raw(port: int, who: str, *, receive_buffer: int = 0) -> AsyncIterator[RawPeer]:
    """Raises what is in `GONE` when there is no way in."""
    sock = trio.socket.socket()
    if receive_buffer:
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
    with sock:
        with trio.fail_after(_ANSWER_TIMEOUT):
            await sock.connect(("127.0.0.1", port))
            stream = trio.SocketStream(sock)
            peer = Peer(stream)
            await stream.send_all(upgrade_of(who))
            while not peer.head.endswith(b"\r\n\r\n"):
                byte = await stream.receive_some(1)  # what follows the head is left in the stream
                if not byte:
                    raise ConnectionClosed(1006, "in the handshake")
                peer.head += byte
            if not peer.head.startswith(b"HTTP/1.1 101 "):
                raise ConnectionClosed(1013, peer.head.decode())
        yield RawPeer(peer)


def upgrade_of(who: str) -> bytes:
    """The request that opens a connection of ``who``."""
    return upgrade(f"/?token={token_for(who, _TOKEN_LASTS)}", HEADERS)


@attrs.define
class Place:
    """A raw peer's way through one room, over as many connections as can be joined to one record."""

    crowd: Crowd
    who: str
    node: int
    room: str
    kind: MemberKind = "raw"
    record: Record | None = None
    position: Position | None = None
    why: str = "cut off"
    """How the last connection ended."""

    async def join(self, raw: RawPeer) -> bool:
        """Whether it is in; what it has missed comes next, if that can be had."""
        await raw.send(Join(1, self.room, self.position))
        with trio.fail_after(_ANSWER_TIMEOUT):
            while not isinstance(answer := await raw.receive(), Ok | Error):
                pass
        if isinstance(answer, Error):
            self.crowd.count(f"joins refused: {answer.code}")
            if answer.code not in EXPECTED_ERRORS:
                self.crowd.trouble(f"{self.who} was refused in {self.room}: {answer}")
            return False
        asked = self.position
        if self.record is None or not answer.recovered:
            self.give_up()
            self.record = self.crowd.open_record(self.who, self.node, self.room, self.kind)
        now, recovered = trio.current_time(), answer.recovered
        self.record.entries.append(Joined(now, str(answer.state), answer.position, recovered, asked))
        self.position = answer.position
        return True

    def give_up(self) -> None:
        """The next connection begins a record of its own."""
        if self.record is not None:
            self.crowd.close_record(self.record, self.why)
        self.record = self.position = None

    async def read(self, raw: RawPeer) -> None:
        """Until the connection ends, or the membership."""
        while True:
            envelope = await raw.receive()
            if self.take(envelope):
                return

    def take(self, envelope: FromServer) -> bool:
        """Note it; whether it is the last one."""
        assert self.record is not None
        entries, now = self.record.entries, trio.current_time()
        match envelope:
            case Push(_, data, _, offset):
                if offset is not None and self.position is not None:
                    self.position = Position(self.position.epoch, offset)
                entries.append(Received(now, key_of(data), self.position))
            case Gap(_, reason, lost, position):
                entries.append(Told(now, reason, lost))
                if position is not msgspec.UNSET:
                    self.position = position
            case PositionChanged(_, position):
                entries.append(Moved(now, position))
                self.position = position
            case Kicked():
                self.why = "kicked"
                self.position = None
                return True
        return False


async def be_raw(crowd: Crowd, who: str, node: int, room: str) -> None:
    """Come and go, until cancelled."""
    chance = crowd.chance(who)
    place = Place(crowd, who, node, room)
    while True:
        with suppress(*GONE):
            async with open_raw(crowd.world.nodes[node].port, who) as raw:
                await _stay(place, raw, chance)
        if place.record is not None and isinstance(place.record.end, Ended):
            return
        if place.position is None or chance.random() < 0.3:
            place.give_up()
        await trio.sleep(chance.uniform(0.05, 0.5))


async def _stay(place: Place, raw: RawPeer, chance: random.Random) -> None:
    place.why = "cut off"
    try:
        if await place.join(raw):
            with trio.move_on_after(chance.expovariate(1 / _STAY)) as stay:
                await place.read(raw)
            if stay.cancelled_caught and not place.crowd.quiet.is_set():
                place.why = "left"
                if chance.random() < 0.5:
                    raw.reset()
            elif stay.cancelled_caught:
                await place.read(raw)
    except ConnectionClosed as closed:
        place.why = str(closed.code)
        note_close(place.crowd, place.who, closed)
        raise


async def who_is_in(port: int, room: str, who: str) -> list[str]:
    """The users that a node knows of, asked by one of them on another connection; empty if it cannot be asked."""
    with suppress(*GONE), trio.fail_after(_ANSWER_TIMEOUT):
        async with open_raw(port, who) as raw:
            await raw.send(Join(1, room))
            await raw.send(Who(2, room, limit=1_000))
            while True:
                match await raw.receive():
                    case Ok(2, members=members):
                        return sorted(member.user for member in members or ())
                    case Error():
                        return []
    return []


def note_close(crowd: Crowd, who: str, closed: ConnectionClosed) -> None:
    """A close that no fault explains is trouble."""
    crowd.count(f"raw peers closed: {closed.code}")
    if closed.code not in EXPECTED_CODES:
        crowd.trouble(f"{who} was closed with {closed.code} {closed.reason}")


def masked(request: Request) -> bytes:
    """A whole frame."""
    return encode_masked(Opcode.TEXT, CODEC.encode([request]))
