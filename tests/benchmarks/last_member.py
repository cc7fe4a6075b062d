"""How long a message takes to the last member of a room, by the rate of messages that come at random times.

    python -m tests.benchmarks.last_member [--members 1000] [--rates 20 50 100 200 500] [--payload 128] [--seconds 10]

The server is this process, on core 0, and publishes by itself: intervals are exponential, as of many people who do
not know of each other. The members are in another process, on core 1, and only count bytes. Prints the median and
the 99th percentile of the time from ``publish`` until the last member has read the message, the CPU of the server,
and of others on its core, who spoil the figures when that is more than a tenth; the rest are points of
`tests/docs/measured.py`.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import select
import socket
import statistics
import time
from multiprocessing.connection import Connection

import trio

import trioroom
from tests.benchmarks.passes import SETTINGS, frame_bytes
from tests.benchmarks.processes import LOAD_CORE, SERVER_CORE, beside, busy_seconds
from tests.benchmarks.raw_peers import open_socket

READ_BYTES = 1 << 18
SEED = 1


def note_last_members(pipe: Connection, port: int, members: int, size: int) -> None:
    """Be the members: when that many messages of ``size`` bytes have come, answer when the last member got each."""
    os.sched_setaffinity(0, {LOAD_CORE})
    poller, buffer = select.epoll(), bytearray(READ_BYTES)
    sockets: dict[int, socket.socket] = {}
    got: dict[int, int] = {}  # bytes
    for _ in range(members):
        sock, _ = open_socket(port, "/all")
        sockets[sock.fileno()], got[sock.fileno()] = sock, 0
        poller.register(sock, select.EPOLLIN)
    pipe.send("joined")
    while (messages := pipe.recv()) > 0:
        missing, last = [members] * messages, [0.0] * messages
        got = dict.fromkeys(got, 0)
        while missing[-1]:
            events = poller.poll(maxevents=64)
            for file, _ in events:
                before = got[file]
                got[file] = now_there = before + sockets[file].recv_into(buffer)
                for number in range(before // size, now_there // size):
                    missing[number] -= 1
                    if not missing[number]:
                        last[number] = time.perf_counter()
        pipe.send(last)


async def publish_at_random(app: trioroom.App, rate: float, messages: int, payload: int) -> list[float]:
    """When each was published."""
    chance, data, began = random.Random(SEED), bytes(payload), []
    due = trio.current_time()
    for _ in range(messages):
        due += chance.expovariate(rate)
        await trio.sleep_until(due)
        began.append(time.perf_counter())
        await app.publish("all", data)
    return began


async def measure(arguments: argparse.Namespace) -> None:
    """A line for each rate."""
    size = frame_bytes(arguments.payload)
    app = trioroom.App()
    app.route("all", trioroom.Room)
    async with trioroom.open_server(app, port=0, settings=SETTINGS) as server:
        with beside(note_last_members, server.port, arguments.members, size) as pipe:
            assert await trio.to_thread.run_sync(pipe.recv) == "joined"
            for rate in arguments.rates:
                messages = int(rate * arguments.seconds)
                pipe.send(messages)
                used, busy, started = time.process_time(), busy_seconds(SERVER_CORE), time.perf_counter()
                began = await publish_at_random(app, rate, messages, arguments.payload)
                await trio.lowlevel.wait_readable(pipe.fileno())
                used, elapsed = time.process_time() - used, time.perf_counter() - started
                others = busy_seconds(SERVER_CORE) - busy - used
                waited = [end - start for start, end in zip(began, pipe.recv(), strict=True)]
                hundredths = statistics.quantiles(waited, n=100)
                print(
                    f"{arguments.members:6} {rate:6g} {arguments.payload:6} p50 {hundredths[49] * 1e3:7.1f} ms  "
                    f"p99 {hundredths[98] * 1e3:7.1f} ms  CPU {100 * used / elapsed:3.0f} %, "
                    f"others {100 * others / elapsed:3.0f} %",
                    flush=True,
                )
            pipe.send(0)


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=1_000)
    parser.add_argument("--rates", type=float, nargs="+", default=[20, 50, 100, 200, 500])
    parser.add_argument("--payload", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {SERVER_CORE})
    print(f"{platform.platform()}, Python {platform.python_version()}; {arguments.seconds:g} s each")
    print("members, messages/s, bytes of each; time to the last member")
    trio.run(measure, arguments)


if __name__ == "__main__":
    main()
