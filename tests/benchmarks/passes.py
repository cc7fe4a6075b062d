"""What a pass of the fan-out costs its server: CPU for each member, by members, messages in the pass and their size.

    python -m tests.benchmarks.passes [--members 100 1000 10000] [--messages 1 8 32] [--payload 128] [--passes 30]

The server is this process, on core 0; the members are in another one, on core 1, which only counts bytes. So many
messages are published at once, and the next ones when all members have read them: each pass is of known size, and
none waits in an outbox. CPU is that of the whole process, publishing included. Over loopback the kernel does the
receiver's part in the sender's time too. Prints the median pass; these are the points of `tests/docs/measured.py`.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import select
import socket
import statistics
import time
from multiprocessing.connection import Connection

import trio

import trioroom
from tests.benchmarks.processes import LOAD_CORE, SERVER_CORE, beside
from tests.benchmarks.raw_peers import open_socket

READ_BYTES = 1 << 18
WARM_PASSES = 5  # in which memory is touched for the first time
BIG = 1 << 40
SETTINGS = trioroom.Settings(
    ping_interval=math.inf,
    room_channel_size=1 << 20,
    room_channel_bytes=BIG,
    max_message_bytes=1 << 20,
    max_queued_bytes=BIG,
)


def count_bytes(pipe: Connection, port: int, members: int) -> None:
    """Be the members: for each number that comes, answer when that many bytes have."""
    os.sched_setaffinity(0, {LOAD_CORE})
    poller, buffer = select.epoll(), bytearray(READ_BYTES)
    sockets: dict[int, socket.socket] = {}
    for _ in range(members):
        sock, _ = open_socket(port, "/all")
        sockets[sock.fileno()] = sock
        poller.register(sock, select.EPOLLIN)
    pipe.send("joined")
    while True:
        left: int = pipe.recv()
        while left > 0:
            for file, _ in poller.poll(maxevents=1_024):
                left -= sockets[file].recv_into(buffer)
        pipe.send("read")


def frame_bytes(payload: int) -> int:
    """Of a message in plain mode, its head included (RFC 6455, section 5.2)."""
    return payload + (2 if payload < 126 else 4 if payload < 65_536 else 10)


async def passes_cpu(
    pipe: Connection, app: trioroom.App, members: int, messages: int, payload: int, passes: int
) -> float:
    """CPU seconds of the median pass."""
    seconds = []
    for _ in range(WARM_PASSES + passes):
        pipe.send(members * messages * frame_bytes(payload))
        before = time.process_time()
        async with trio.open_nursery() as nursery:
            for _ in range(messages):
                nursery.start_soon(app.publish, "all", bytes(payload))
        await trio.lowlevel.wait_readable(pipe.fileno())
        assert pipe.recv() == "read"
        seconds.append(time.process_time() - before)
    return statistics.median(seconds[WARM_PASSES:])


async def measure(arguments: argparse.Namespace) -> None:
    """A line for each combination."""
    for members in arguments.members:
        app = trioroom.App()
        app.route("all", trioroom.Room)
        async with trioroom.open_server(app, port=0, settings=SETTINGS) as server:
            with beside(count_bytes, server.port, members) as pipe:
                assert await trio.to_thread.run_sync(pipe.recv) == "joined"
                for payload in arguments.payload:
                    for messages in arguments.messages:
                        cpu = await passes_cpu(pipe, app, members, messages, payload, arguments.passes)
                        print(f"{members:6} {messages:4} {payload:6} {cpu / members * 1e6:9.2f} us", flush=True)


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--messages", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--payload", type=int, nargs="+", default=[128])
    parser.add_argument("--passes", type=int, default=30)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {SERVER_CORE})
    print(f"{platform.platform()}, Python {platform.python_version()}; medians of {arguments.passes} passes")
    print("members, messages in the pass, bytes of each; CPU for each member")
    trio.run(measure, arguments)


if __name__ == "__main__":
    main()
