"""Who pays for a publication through Redis: CPU of the broker, by nodes, and of nodes that publish and hear.

    python -m tests.benchmarks.broker_share [--nodes 1 10 50] [--payload 128] [--publications 20000] [--server PATH]

A node in this process publishes, 64 at a time; one node in another process hears; the other nodes are bare
subscribers in a third one, which read and count bytes. CPU is that of each process, divided by publications, so it
matters little who else is on the machine; rates are told by `tests.benchmarks.backplane`.
"""

from __future__ import annotations

import argparse
import platform
import re
import select
import socket
import time
from multiprocessing.connection import Connection
from pathlib import Path

import trio

from tests.backplane.redis.servers import RedisServer, binaries, open_redis_server
from tests.benchmarks.processes import beside
from trioroom.backplane.redis import open_redis
from trioroom.testing.conformance import subscribed

ROOM = "bench"
CHANNEL = f"trioroom:room:{ROOM}"
PUBLISHERS = 64
READ_BYTES = 1 << 18


async def cpu_of(broker: RedisServer) -> float:
    """Seconds that it has used, as it says itself."""
    said = str(await broker.command("INFO", "cpu"))
    return sum(float(seconds) for seconds in re.findall(r"used_cpu_(?:sys|user):([\d.]+)", said))


def hear(pipe: Connection, url: str) -> None:
    """A node; it answers each number of publications with its CPU when they have come."""

    async def run() -> None:
        async with open_redis(url) as node, subscribed(node, ROOM, 65_536) as subscription:
            pipe.send("subscribed")
            while True:
                expected = await trio.to_thread.run_sync(pipe.recv)
                used = time.process_time()
                for _ in range(expected):
                    assert isinstance(await subscription.receive(), bytes)
                pipe.send(time.process_time() - used)

    trio.run(run)  # until the process is killed


def drain(pipe: Connection, port: int, channel: str, subscribers: int) -> None:
    """Bare subscribers, until the process ends."""
    poller, sockets = select.epoll(), {}
    for _ in range(subscribers):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(f"SUBSCRIBE {channel}\r\n".encode())
        sock.recv(READ_BYTES)
        sockets[sock.fileno()] = sock
        poller.register(sock, select.EPOLLIN)
    pipe.send("subscribed")
    buffer = bytearray(READ_BYTES)
    while True:
        for file, _ in poller.poll():
            sockets[file].recv_into(buffer)


async def publish_all(url: str, count: int, payload: int) -> float:
    """CPU seconds of the publishing node."""
    async with open_redis(url) as node:
        used = time.process_time()

        async def publish() -> None:
            for _ in range(count // PUBLISHERS):
                await node.publish(ROOM, bytes(payload))

        async with trio.open_nursery() as nursery:
            for _ in range(PUBLISHERS):
                nursery.start_soon(publish)
        return time.process_time() - used


async def measure(arguments: argparse.Namespace) -> None:
    """A line for each number of nodes."""
    binary = Path(arguments.server) if arguments.server else next(iter(binaries().values()))
    count = arguments.publications // PUBLISHERS * PUBLISHERS
    for nodes in arguments.nodes:
        async with open_redis_server(binary) as broker:
            with beside(hear, broker.url) as hearing, beside(drain, broker.port, CHANNEL, nodes - 1) as others:
                for pipe in (hearing, others):
                    assert await trio.to_thread.run_sync(pipe.recv) == "subscribed"
                hearing.send(count)
                used = await cpu_of(broker)
                publishing = await publish_all(broker.url, count, arguments.payload)
                heard = await trio.to_thread.run_sync(hearing.recv)
                broker_cpu = await cpu_of(broker) - used
            each = [seconds / count * 1e6 for seconds in (broker_cpu, publishing, heard)]
            print("{:5} {:9.2f} us {:9.2f} us {:9.2f} us".format(nodes, *each), flush=True)


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--payload", type=int, default=128)
    parser.add_argument("--publications", type=int, default=20_000)
    parser.add_argument("--server", help="the program; the one that the tests use if not given")
    arguments = parser.parse_args()
    print(
        f"{platform.platform()}, Python {platform.python_version()}; {arguments.publications} of {arguments.payload} B"
    )
    print("nodes that hear; CPU for each publication: broker, node that publishes, node that hears")
    trio.run(measure, arguments)


if __name__ == "__main__":
    main()
