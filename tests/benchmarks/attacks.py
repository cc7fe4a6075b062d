"""What a hostile peer may do to a server: each attack is a small function over a raw socket.

`ATTACKS` says what ends each of them; `attack_server` lets many attackers make one and tells how it went.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from multiprocessing.connection import Connection

import attrs
import trio

from tests.benchmarks.processes import give_way, server_ends
from tests.benchmarks.raw_peers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    READ_BYTES,
    TEXT,
    close_code,
    frame,
    split,
    upgrade,
)

SOURCE = "127.0.0.2"  # the attackers' address, so that bounds of one address leave other peers alone
PATH = "/echo"
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
RSV1 = 0x40
SO_ATTACH_FILTER = 26  # Linux, asm-generic/socket.h; the socket module does not know it
WATCH_INTERVAL = 0.25  # seconds between two looks at what the server has open
STILL_THERE, CUT_OFF = "still there", "cut off"


@attrs.define
class Attacker:
    """A connection, not yet open, and what it has sent."""

    port: int
    sock: trio.socket.SocketType = attrs.field(factory=trio.socket.socket)
    sent: int = 0

    async def connect(self) -> None:
        """TCP only."""
        await self.sock.bind((SOURCE, 0))
        await self.sock.connect(("127.0.0.1", self.port))

    async def send(self, data: bytes) -> None:
        """All of ``data``."""
        rest = memoryview(data)
        while rest:
            sent = await self.sock.send(rest)
            self.sent += sent
            rest = rest[sent:]

    async def open(self, headers: str) -> str:
        """The opening handshake; the answer's status."""
        await self.send(upgrade(PATH, headers))
        answer = b""
        while b"\r\n\r\n" not in answer:  # nothing comes behind it, as we have asked for nothing
            data = await self.sock.recv(READ_BYTES)
            if not data:
                return CUT_OFF
            answer += data
        return answer[9:12].decode()

    async def end(self) -> str:
        """Read until it is over: a close code, the status of an HTTP answer, or that we were cut off."""
        rest = b""
        with suppress(OSError):
            while data := await self.sock.recv(READ_BYTES):
                if data.startswith(b"HTTP/1.1 "):
                    return data[9:12].decode()
                data = rest + data
                found, rest = split(data)
                for opcode, start, end in found:
                    if opcode == CLOSE:
                        return close_code(data[start:end])
        return CUT_OFF


# The attacks. Each goes on until it is cancelled, or its socket fails.


async def slowloris(attacker: Attacker) -> None:
    """A handshake at one byte a second."""
    for byte in upgrade(PATH):
        await attacker.send(bytes([byte]))
        await trio.sleep(1)


async def frame_flood(attacker: Attacker) -> None:
    """Messages of one byte, as many as go."""
    frames = frame(b"x") * 1_000
    while True:
        await attacker.send(frames)


async def ping_flood(attacker: Attacker) -> None:
    """Pings of the largest size, as many as go."""
    frames = frame(bytes(125), FIN | PING) * 500
    while True:
        await attacker.send(frames)


async def claim_length(attacker: Attacker) -> None:
    """A frame that says it has 100 MB, and its payload, for as long as somebody takes it."""
    await attacker.send(struct.pack("!BBQ", FIN | BINARY, FIN | 127, 100_000_000) + bytes(4))
    while True:
        await attacker.send(bytes(READ_BYTES))


async def bomb(attacker: Attacker) -> None:
    """64 KiB that inflate to 64 MiB."""
    await attacker.send(frame(BOMB, FIN | RSV1 | BINARY))
    await trio.sleep_forever()


async def fragment(attacker: Attacker) -> None:
    """A message in 10,000 fragments of a byte each."""
    await attacker.send(frame(b"x", BINARY) + frame(b"x", CONTINUATION) * 10_000)
    await trio.sleep_forever()


async def fragment_emptily(attacker: Attacker) -> None:
    """A message in 10,000 fragments without a byte."""
    await attacker.send(frame(b"", TEXT) + frame(b"", CONTINUATION) * 10_000)
    await trio.sleep_forever()


async def do_nothing(attacker: Attacker) -> None:
    """Not even answer pings."""
    await trio.sleep_forever()


async def vanish(attacker: Attacker) -> None:
    """From now on our kernel drops what comes, so that the server's gets no word: a peer behind a firewall's drop."""
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0 bytes of the packet
    program = struct.pack("HP", 1, ctypes.addressof(drop_all))
    attacker.sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    await trio.sleep_forever()


async def read_nothing(attacker: Attacker) -> None:
    """Ask for half a MiB more than the kernel takes in for us, never read it, and look alive."""
    for _ in range((kernel_capacity() + (1 << 19)) // 60_000):
        await attacker.send(frame(bytes(60_000)))
        await trio.sleep(0.05)
    while True:
        await attacker.send(frame(b"", FIN | PONG))
        await trio.sleep(1)


def kernel_capacity() -> int:
    """What one socket of this machine takes for a peer who never reads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            accepted.setblocking(False)
            taken = 0
            with suppress(BlockingIOError):
                while True:
                    taken += accepted.send(bytes(READ_BYTES))
            return taken


def deflated(data: bytes) -> bytes:
    """As permessage-deflate has it (RFC 7692 §7.2.1)."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]


BOMB = deflated(bytes(64 << 20))


@attrs.frozen
class Attack:
    """One kind of attack and the end it should come to."""

    act: Callable[[Attacker], Awaitable[None]]
    end: str
    """The close code, the HTTP status, or `CUT_OFF`."""
    within: tuple[str, ...] = ()
    """Settings whose sum is the time it may take; none is at once."""
    attackers: int = 50
    headers: str = ""
    opens: bool = True
    """Whether the handshake comes before the attack."""
    reads: bool = True
    """Whether the attacker reads; else its end is the one that the server's kernel shows."""


ATTACKS = {
    "slow handshake": Attack(slowloris, "408", ("handshake_timeout",), attackers=1_000, opens=False),
    "1-byte messages": Attack(frame_flood, "1008"),
    "ping flood": Attack(ping_flood, "1008"),
    "ping flood, unread": Attack(ping_flood, CUT_OFF, ("close_timeout",), reads=False),
    "100 MB claimed": Attack(claim_length, "1009"),
    "compression bomb": Attack(bomb, "1009", headers=DEFLATE),
    "1-byte fragments": Attack(fragment, "1009"),
    "empty fragments": Attack(fragment_emptily, "1009"),
    "never pongs": Attack(do_nothing, "4110", ("ping_interval", "ping_timeout")),
    "vanishes": Attack(vanish, CUT_OFF, ("ping_interval", "ping_timeout", "close_timeout"), reads=False),
    "reads nothing": Attack(read_nothing, CUT_OFF, ("write_timeout", "close_timeout"), reads=False),
}


@attrs.define
class Report:
    """How an attack went."""

    ends: list[tuple[str, float]] = attrs.field(factory=list)
    """What ended each attacker, and after how many seconds."""
    sent: int = 0
    """Bytes, of all of them."""


@attrs.define
class Assault:
    """One attack on one server, by many attackers."""

    attack: Attack
    port: int
    patience: float
    report: Report = attrs.field(factory=Report)
    held: dict[str, trio.Event] = attrs.field(factory=dict)
    """Addresses of attackers who do not see for themselves that the server has closed, and what tells them."""

    async def run(self, attackers: int, seconds: float) -> None:
        """All at once, and each of them again every second, for so many seconds and until the last one ends."""
        async with trio.open_nursery() as watching:
            if not self.attack.reads:
                watching.start_soon(self._watch)
            async with trio.open_nursery() as nursery:
                for _ in range(attackers):
                    nursery.start_soon(self._keep_attacking, trio.current_time() + seconds)
            watching.cancel_scope.cancel()

    async def _keep_attacking(self, until: float) -> None:
        end = ""
        while trio.current_time() < until and end != STILL_THERE:
            started = trio.current_time()
            attacker = Attacker(self.port)
            with attacker.sock:
                end = await self._attack(attacker)
            self.report.ends.append((end, trio.current_time() - started))
            self.report.sent += attacker.sent
            await trio.sleep_until(started + 1)

    async def _attack(self, attacker: Attacker) -> str:
        end = STILL_THERE
        with trio.move_on_after(self.patience):
            try:
                await attacker.connect()
                if self.attack.opens and (status := await attacker.open(self.attack.headers)) != "101":
                    return status
            except OSError:
                return CUT_OFF
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._act, attacker)
                end = await (attacker.end() if self.attack.reads else self._given_up(attacker))
                nursery.cancel_scope.cancel()
        return end

    async def _act(self, attacker: Attacker) -> None:
        with suppress(OSError):  # how it ended is seen by who reads
            await self.attack.act(attacker)

    async def _given_up(self, attacker: Attacker) -> str:
        address, port = attacker.sock.getsockname()
        packed = f"{int.from_bytes(socket.inet_aton(address), 'little'):08X}:{port:04X}"
        closed = self.held[packed] = trio.Event()
        await closed.wait()
        return CUT_OFF

    async def _watch(self) -> None:
        while True:
            for address in self.held.keys() - open_peers(self.port):
                self.held.pop(address).set()
            await trio.sleep(WATCH_INTERVAL)


def open_peers(port: int) -> set[str]:
    """The peers whose connections a server has open, as the kernel writes addresses."""
    return {end.peer for end in server_ends(port) if end.open}


def attack_server(pipe: Connection, name: str, port: int, attackers: int, seconds: float, patience: float) -> None:
    """Say that the attack begins, and when it is over how it went; see `Assault.run`."""
    assault = Assault(ATTACKS[name], port, patience)
    give_way()
    pipe.send(None)
    trio.run(assault.run, attackers, seconds)
    pipe.send(assault.report)
