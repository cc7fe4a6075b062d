"""Peers that come and go: in good order, in bad order, and those who stay and read nothing."""

from __future__ import annotations

import random
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import trio

from tests.benchmarks.raw_peers import CLOSE, FIN, PONG, READ_BYTES, TEXT, frame, split, upgrade

_PATIENCE = 30.0  # seconds a stranger waits for the server at most
_STALLED_BUFFER = 4_096  # SO_RCVBUF of those who read nothing
_HEAVY_MESSAGE = frame(bytes(20_000))
_HEAVY_INTERVAL = 0.05
_NORMAL_CLOSE = frame(struct.pack("!H", 1000), FIN | CLOSE)
_PONG = frame(b"", FIN | PONG)
_V1 = "Sec-WebSocket-Protocol: trioroom.v1.json\r\n"


async def _open(port: int, path: str, *, headers: str = "", receive_buffer: int = 0) -> trio.SocketStream | None:
    """A WebSocket to ``path``; None if the server has no place for us now."""
    sock = trio.socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    stream = trio.SocketStream(sock) if await _connected(sock, port) else None
    if stream is None:
        return None
    await stream.send_all(upgrade(path, headers))
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = await stream.receive_some(READ_BYTES)
        if not data:
            break
        answer += data
    if answer.startswith(b"HTTP/1.1 101 "):
        return stream
    await stream.aclose()
    return None


async def _connected(sock: trio.socket.SocketType, port: int) -> bool:
    try:
        await sock.connect(("127.0.0.1", port))
    except OSError:
        sock.close()
        return False
    return True


# How a stranger leaves.


async def _close(stream: trio.SocketStream) -> None:
    await stream.send_all(_NORMAL_CLOSE)
    while await stream.receive_some(READ_BYTES):
        pass


async def _reset(stream: trio.SocketStream) -> None:
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _half_close(stream: trio.SocketStream) -> None:
    await stream.send_eof()
    while await stream.receive_some(READ_BYTES):
        pass


async def _break_the_protocol(stream: trio.SocketStream) -> None:
    await stream.send_all(bytes([0xFF] * 14))
    while await stream.receive_some(READ_BYTES):
        pass


async def _tear_a_frame(stream: trio.SocketStream) -> None:
    await stream.send_all(_HEAVY_MESSAGE[:1_000])


async def _just_go(stream: trio.SocketStream) -> None:
    pass


_WAYS: Sequence[Callable[[trio.SocketStream], Awaitable[None]]] = (
    _close, _close, _reset, _half_close, _break_the_protocol, _tear_a_frame, _just_go,
)  # fmt: skip


async def visit(port: int, chance: random.Random, counts: Counter[str]) -> None:
    """One stranger: comes, talks a little, and goes somehow."""
    doing = "come"
    with trio.move_on_after(_PATIENCE) as scope, suppress(OSError, trio.BrokenResourceError):
        if chance.random() < 0.1:
            await _stop_in_the_handshake(port, chance)
            counts["strangers who stopped in the handshake"] += 1
            return
        v1 = chance.random() < 0.5
        room = f"passing/{chance.randrange(50)}"
        stream = await _open(port, "/" if v1 else f"/{room}", headers=_V1 if v1 else "")
        if stream is None:
            counts["strangers who found no place"] += 1
            return
        async with stream:
            if v1:
                await stream.send_all(frame(f'{{"type":"join","id":1,"room":"{room}"}}'.encode(), FIN | TEXT))
            for _ in range(chance.randrange(4)):
                said = b'{"type":"publish","room":"%b","data":"hello"}' % room.encode() if v1 else b"hello"
                await stream.send_all(frame(said, FIN | TEXT))
                await trio.sleep(chance.random())
            leave = chance.choice(_WAYS)
            doing = leave.__name__.strip("_").replace("_", " ")
            await leave(stream)
            counts[f"strangers who came to {doing}"] += 1
    if scope.cancelled_caught:
        counts[f"strangers who waited in vain to {doing}"] += 1


async def _stop_in_the_handshake(port: int, chance: random.Random) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        head = upgrade("/passing/0")
        await stream.send_all(head[: chance.randrange(len(head))])
        await trio.sleep(chance.random() * 3)


async def churn(ports: Sequence[int], rate: float, counts: Counter[str]) -> None:
    """``rate`` strangers a second, until cancelled."""
    chance = random.Random(8)
    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(visit, chance.choice(ports), random.Random(chance.random()), counts)
            await trio.sleep(chance.expovariate(rate))


async def stall(port: int, counts: Counter[str]) -> None:
    """Be in a room with much to read and read nothing, until the server has had enough; and again."""
    while True:
        with suppress(OSError, trio.BrokenResourceError):
            if (stream := await _open(port, "/heavy/0", receive_buffer=_STALLED_BUFFER)) is not None:
                async with stream:
                    await _wait_dropped(stream)
                    counts["slow readers dropped"] += 1
        await trio.sleep(1)


async def _wait_dropped(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        while True:  # reading would end the stall; writing tells, in the end, that nobody is there
            await trio.sleep(1)
            await stream.send_all(_PONG)


async def talk_heavily(port: int, counts: Counter[str]) -> None:
    """Publish much into the room of those who read nothing."""
    while True:
        with suppress(OSError, trio.BrokenResourceError):
            if (stream := await _open(port, "/heavy/0")) is not None:
                async with stream, trio.open_nursery() as nursery:
                    nursery.start_soon(_read_all, stream, nursery.cancel_scope, counts)
                    while True:
                        await stream.send_all(_HEAVY_MESSAGE)
                        await trio.sleep(_HEAVY_INTERVAL)
        await trio.sleep(1)


async def _read_all(stream: trio.SocketStream, done: trio.CancelScope, counts: Counter[str]) -> None:
    rest = b""
    with suppress(trio.BrokenResourceError):
        while data := await stream.receive_some(READ_BYTES):
            found, rest = split(rest + data)
            counts["frames of the heavy room"] += len(found)
    done.cancel()
