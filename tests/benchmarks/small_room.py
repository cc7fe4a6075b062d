"""What a small room notices of a fan-out of 100,000 deliveries in another one of the same server.

    python -m tests.benchmarks.small_room [--seconds 10] [--rounds 3] [--sizes 128 1024 16384]

The large room of 10,000 members gets ten messages at once, and ten more when all of them have arrived
everywhere. In the small room of five, one says something every ten milliseconds. The bar is the small room
alone. Server on core 0; on core 1 the small room, and the members of the large one in a process that runs
only while the small one is idle, so that the small room's latency is the server's.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import sys
from itertools import count
from multiprocessing.connection import Connection

from tests.benchmarks.processes import LOAD_CORE, CpuMeter, beside, give_way, rooms_command, running
from tests.benchmarks.raw_peers import Swarm, frame, stamped

QUANTILES = {"p50 ms": 0.5, "p99 ms": 0.99, "longest ms": 1.0}
SMALL_ROOM, INTERVAL, MESSAGE_BYTES = 5, 0.01, 64
LOOK_INTERVAL = 0.1  # seconds between two looks whether the large room has opened, or shall stop
OPENING = 60.0  # seconds it may take to open


def crowd(pipe: Connection, port: int, members: int, burst: int, size: int) -> None:
    """The large room: say that it is there; publish until told to stop; say how many deliveries there were."""
    swarm = Swarm()
    peers = swarm.join(port, "/all", members)
    published = 0
    stopping = False

    def publish() -> bool:
        nonlocal published
        if not stopping and swarm.latencies.total == published * members:
            for peer in peers[:burst]:  # each one message, as one alone might meet a limit of what a member may send
                peer.send(frame(stamped(size)))
            published += burst
        return stopping

    def look() -> None:
        nonlocal stopping
        stopping = pipe.poll()

    swarm.every(LOOK_INTERVAL, look)
    give_way()
    pipe.send(0)
    pipe.recv()
    swarm.run(math.inf, publish)
    pipe.send(swarm.latencies.total)


def measure(arguments: argparse.Namespace, size: int) -> dict[str, float]:
    """One run against a fresh server; without the large room if ``size`` is 0."""
    with running(rooms_command(arguments.settings)) as (port, pid):
        swarm = Swarm()
        peers = swarm.join(port, "/chat/small", SMALL_ROOM)
        turns = count()
        swarm.every(INTERVAL, lambda: peers[next(turns) % SMALL_ROOM].send(frame(stamped(MESSAGE_BYTES))))
        if not size:
            return converse(swarm, pid, arguments.seconds)
        with beside(crowd, port, arguments.members, arguments.burst, size) as pipe:
            if not pipe.poll(OPENING):
                raise SystemExit(f"no room of {arguments.members} members after {OPENING:g} s; ask for fewer")
            pipe.recv()
            swarm.run(1)  # makes up for what was not said meanwhile
            pipe.send(None)
            figures = converse(swarm, pid, arguments.seconds)
            pipe.send(None)
            figures["deliveries/s"] = pipe.recv() / arguments.seconds
        return figures


def converse(swarm: Swarm, pid: int, seconds: float) -> dict[str, float]:
    """What the small room sees."""
    swarm.latencies.clear()
    meter = CpuMeter(pid)
    swarm.run(seconds)
    return {
        **{name: swarm.latencies.quantile(share) for name, share in QUANTILES.items()},
        **meter.figures(),
        "deliveries/s": 0,
    }


def main() -> None:
    """Let the sizes take turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--members", type=int, default=10_000, help="of the large room (default: 10000)")
    parser.add_argument("--burst", type=int, default=10, help="messages the large room gets at once (default: 10)")
    parser.add_argument("--sizes", type=int, nargs="*", default=[128, 1_024, 16_384], help="bytes of such a message")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--rounds", type=int, default=3, help="odd, so that there is a median (default: 3)")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    figures: dict[int, dict[str, list[float]]] = {size: {} for size in (0, *arguments.sizes)}
    for done in range(arguments.rounds):
        for size, of_size in figures.items():
            print(f"round {done + 1} of {arguments.rounds}, {size} bytes", end="\033[K\r", file=sys.stderr, flush=True)
            for figure, value in measure(arguments, size).items():
                of_size.setdefault(figure, []).append(value)
    print(f"{platform.platform()}, Python {platform.python_version()}, medians of {arguments.rounds} rounds (highest)")
    for size, of_size in figures.items():
        print(f"large room: {f'{arguments.burst} x {size} bytes' if size else 'none'}")
        for figure, values in of_size.items():
            print(f"    {figure:16} {statistics.median(values):12,.2f}  ({max(values):,.2f})")


if __name__ == "__main__":
    main()
