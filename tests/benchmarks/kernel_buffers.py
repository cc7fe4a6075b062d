"""What peers that stall hold in the kernel, by socket options: members that never read, and peers nobody reads from.

    python tests/benchmarks/kernel_buffers.py [--members 1000] [CANDIDATE...]

For each candidate one process serves N members over loopback that read 4 MiB, so that the kernel thinks well of
them, and nothing more; messages of 1 KiB are fanned out until the kernel takes none. Then N peers send as much, and
go on while the server does not read, until the kernel takes none. "send" and "receive" are the server's own sockets
(SO_MEMINFO: what the kernel charges, overhead included), "payload" the bytes of ours in the send queues (SIOCOUTQ).
"both ends" is all TCP memory of the machine (/proc/net/sockstat); the peers' half is bounded by options of theirs.
Linux only.
"""

from __future__ import annotations

import argparse
import fcntl
import math
import platform
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import attrs
import trio
import trio.testing

import trioroom
from trioroom._wire.client_frames import encode_masked
from trioroom._wire.frames import Opcode

KIB = 1_024
PAGE = 4 * KIB
SO_MEMINFO = 55  # include/uapi/asm-generic/socket.h; the fields are those of include/uapi/linux/sock_diag.h
SIOCOUTQ = 0x5411
MESSAGE = bytes(KIB)
STEADY_MESSAGES = 200  # of which the kernel took nothing, after which it is taken to be full
WARM = bytes(64 * KIB - 14)  # with its head no more than a read of the server
WARM_MESSAGES = 64
PEER_BYTES = 256 * KIB  # SO_RCVBUF and SO_SNDBUF of the peers, doubled by the kernel

BASE = trioroom.Settings(
    socket_send_bytes=None,
    socket_receive_bytes=None,
    socket_unsent_bytes=None,
    max_outbox_bytes=1 << 40,  # nobody is closed: what counts here is what the kernel takes before the outbox does
    max_outbox_messages=1 << 40,
    ping_interval=math.inf,
    tcp_user_timeout=math.inf,
)
CANDIDATES = {
    "autotuning": BASE,
    **{f"send-{size}": attrs.evolve(BASE, socket_send_bytes=size * KIB) for size in (8, 16, 32, 64, 128, 256)},
    "unsent-4": attrs.evolve(BASE, socket_unsent_bytes=4 * KIB),
    "unsent-16": attrs.evolve(BASE, socket_unsent_bytes=16 * KIB),
    "unsent-64": attrs.evolve(BASE, socket_unsent_bytes=64 * KIB),
    "send-64-unsent-16": attrs.evolve(BASE, socket_send_bytes=64 * KIB, socket_unsent_bytes=16 * KIB),
    "send-256-unsent-16": attrs.evolve(BASE, socket_send_bytes=256 * KIB, socket_unsent_bytes=16 * KIB),
    **{f"receive-{size}": attrs.evolve(BASE, socket_receive_bytes=size * KIB) for size in (16, 32, 64, 128)},
    "defaults": attrs.evolve(
        trioroom.Settings(),
        max_outbox_bytes=1 << 40,
        max_outbox_messages=1 << 40,
        ping_interval=math.inf,
        tcp_user_timeout=math.inf,
    ),
}


class Room(trioroom.Room):
    """Takes large messages, and is never done with the first small one, so that what follows stays in the kernel."""

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        """Take it, or never return."""
        if len(message.data) < len(WARM):  # type: ignore[arg-type]  # plain mode: str or bytes
            await trio.sleep_forever()


def main() -> None:
    """Print a table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidates", nargs="*", default=list(CANDIDATES), metavar="CANDIDATE")
    parser.add_argument("--members", type=int, default=1_000)
    parser.add_argument("--batch", type=int, default=1, help="messages that the room joins into one write (default: 1)")
    arguments = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}; bytes for each of {arguments.members} members")
    print(f"{'':22} {'send':>10} {'payload':>10} {'both ends':>10} | {'receive':>10} {'both ends':>10}")
    for name in arguments.candidates:
        trio.run(report, name, arguments.members, arguments.batch)


async def report(name: str, members: int, batch: int) -> None:
    """One line of the table."""
    figures = [*await stall_reading(CANDIDATES[name], members, batch), *await stall_serving(CANDIDATES[name], members)]
    send, payload, both, receive, both_receiving = (f"{figure / members:10,.0f}" for figure in figures)
    print(f"{name:22} {send} {payload} {both} | {receive} {both_receiving}", flush=True)


async def stall_reading(settings: trioroom.Settings, members: int, batch: int) -> tuple[int, int, int]:
    """Kernel bytes with members that never read: charged to our sockets, our payload, both ends."""
    before = tcp_bytes()
    async with serving(settings, members) as (app, server, peers):
        for _ in range(WARM_MESSAGES):
            await app.publish("room", WARM)
            await trio.testing.wait_all_tasks_blocked(0.001)
            while sum(read_some(peer) for peer in peers):
                await trio.testing.wait_all_tasks_blocked(0.001)
        ours = sockets_of(server)
        taken = steady = 0
        while steady < STEADY_MESSAGES:
            for _ in range(batch):
                await app.publish("room", MESSAGE)
            await trio.testing.wait_all_tasks_blocked(0.001)
            before_batch, taken = taken, sum(map(queued, ours))
            steady = steady + batch if before_batch == taken > 0 else 0
        return sum(send_memory(sock) for sock in ours), taken, tcp_bytes() - before


async def stall_serving(settings: trioroom.Settings, members: int) -> tuple[int, int]:
    """Kernel bytes with peers that send on and on to a hook that does not return: our sockets, both ends."""
    await trio.sleep(1)  # the kernel takes its time to give back what the last ones held
    before = tcp_bytes()
    async with serving(settings, members) as (_, server, peers):
        warm = encode_masked(Opcode.BINARY, WARM)
        for _ in range(WARM_MESSAGES):
            rest = dict.fromkeys(peers, warm)
            while rest:
                rest = {peer: left for peer, data in rest.items() if (left := data[send_some(peer, data) :])}
                await trio.testing.wait_all_tasks_blocked(0.001)
        frames = encode_masked(Opcode.BINARY, MESSAGE) * 64
        while sum(send_some(peer, frames) for peer in peers):
            await trio.testing.wait_all_tasks_blocked(0.05)
        ours = sockets_of(server)
        return sum(meminfo(sock)[0] for sock in ours), tcp_bytes() - before


@asynccontextmanager
async def serving(
    settings: trioroom.Settings, members: int
) -> AsyncIterator[tuple[trioroom.App, trioroom.Server, list[socket.socket]]]:
    """A server with ``members`` in one room, and their ends, of which nobody reads."""
    app = trioroom.App()
    app.route("room", Room)
    request = (
        b"GET /room HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with ExitStack() as stack, trio.CancelScope() as scope:
        async with trioroom.open_server(app, port=0, settings=settings) as server:
            peers = [stack.enter_context(socket.socket()) for _ in range(members)]
            for peer in peers:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PEER_BYTES)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PEER_BYTES)
                peer.connect(server.addresses[0])
                peer.send(request)
                peer.setblocking(False)
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert server.connection_count == members
            yield app, server, peers
            scope.cancel()  # nobody would answer our close frames
            await trio.lowlevel.checkpoint()


def sockets_of(server: trioroom.Server) -> list[socket.socket]:
    """The server's ends."""
    return [connection.transport.socket for connection in server._hub.connections]  # type: ignore[attr-defined]


def send_some(peer: socket.socket, data: bytes) -> int:
    """How many bytes of it the kernel took."""
    try:
        return peer.send(data)
    except BlockingIOError:
        return 0


def read_some(peer: socket.socket) -> int:
    """How many bytes there were."""
    try:
        return len(peer.recv(len(WARM)))
    except BlockingIOError:
        return 0


def queued(sock: socket.socket) -> int:
    """Bytes of ours that the peer's kernel has not acknowledged."""
    return int(struct.unpack("i", fcntl.ioctl(sock, SIOCOUTQ, bytes(4)))[0])


def meminfo(sock: socket.socket) -> tuple[int, ...]:
    """rmem_alloc, rcvbuf, wmem_alloc, sndbuf, fwd_alloc, wmem_queued, optmem, backlog, drops."""
    return struct.unpack("9I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))


def send_memory(sock: socket.socket) -> int:
    """What the kernel charges for what we sent and the peer did not take."""
    return meminfo(sock)[5]


def tcp_bytes() -> int:
    """All TCP memory of this machine."""
    found = re.search(r"TCP: .* mem (\d+)", Path("/proc/net/sockstat").read_text())
    assert found is not None
    return int(found[1]) * PAGE


if __name__ == "__main__":
    main()
