"""What members who never read cost the others, and the server's memory: a room with and without them.

    python -m tests.benchmarks.slow_consumers [--seconds 60] [--rate 40] [--stalled 200] [--rounds 1]

Of 2,000 members 200 connect and read nothing, not even their pings. The healthy ones get messages of
1 KiB at a steady rate, or with ``--rate 0`` as fast as they come with ``--window`` of them in flight. The
bar is the same room without the stalled ones; the two take turns. A stalled member counts as dropped when
the server has given its socket back; whether it is told so is another figure, since a peer whose window
is shut hears of the end only by a reset. "All TCP" is the kernel's memory for all sockets of the machine, its
kernel queues are what the server's own sockets hold at the end. Server on core 0, load on core 1.
"""

from __future__ import annotations

import argparse
import os
import platform
import select
import socket
import statistics
import sys
import time
from itertools import pairwise

import attrs

from tests.benchmarks.processes import LOAD_CORE, CpuMeter, Sample, Watch, rooms_command, running, server_ends
from tests.benchmarks.raw_peers import Swarm, frame, open_socket, stamped

LOOK_INTERVAL = 0.1  # seconds between two samples of the server
AFTER = 1.0  # seconds from the last message to the last sample
MIB = 1 << 20


@attrs.define
class Publisher:
    """The healthy members in turn, as one alone might meet a limit of what a member may send."""

    swarm: Swarm
    size: int
    published: int = 0

    def publish(self) -> None:
        """One message more."""
        self.swarm.peers[self.published % len(self.swarm.peers)].send(frame(stamped(self.size)))
        self.published += 1

    def fill(self, window: int) -> bool:
        """Publish until so many are in flight, which ends when all members have a message; never done."""
        arrived = self.swarm.latencies.total // len(self.swarm.peers)
        while self.published - arrived < window:
            self.publish()
        return False


@attrs.define
class Stalled:
    """Members that never read."""

    sockets: list[socket.socket]
    told: int = 0
    """How many know that they were dropped."""
    _epoll: select.epoll = attrs.field(factory=select.epoll)

    def __attrs_post_init__(self) -> None:
        for sock in self.sockets:
            self._epoll.register(sock, select.EPOLLRDHUP)

    def look(self) -> None:
        """Count those who were told since."""
        for file, _ in self._epoll.poll(0):
            self._epoll.unregister(file)
            self.told += 1

    def close(self) -> None:
        """Cut all connections."""
        self._epoll.close()
        for sock in self.sockets:
            sock.close()


def measure(arguments: argparse.Namespace, stalled_members: int) -> dict[str, float]:
    """One run against a fresh server."""
    with running(rooms_command(arguments.settings, f"--overflow={arguments.overflow}")) as (port, pid):
        swarm = Swarm()
        swarm.join(port, "/all", arguments.members - arguments.stalled)
        stalled = Stalled(
            [open_socket(port, "/all", receive_buffer=arguments.stalled_rcvbuf)[0] for _ in range(stalled_members)]
        )
        publisher = Publisher(swarm, arguments.size)
        watch = Watch(pid)
        swarm.every(LOOK_INTERVAL, watch.look)
        swarm.every(LOOK_INTERVAL, stalled.look)
        before = watch.look()
        meter = CpuMeter(pid)
        if arguments.rate:
            swarm.every(1 / arguments.rate, publisher.publish)
            swarm.run(arguments.seconds)
        else:
            swarm.run(arguments.seconds, lambda: publisher.fill(arguments.window))
        elapsed = time.perf_counter() - before.at
        deliveries = swarm.latencies.total
        cpu = meter.figures()
        queued = sum(end.queued for end in server_ends(port))
        time.sleep(AFTER)
        after = watch.look()
        stalled.look()
        figures = {
            "deliveries/s": deliveries / elapsed,
            "p50 ms": swarm.latencies.quantile(0.5),
            "p99 ms": swarm.latencies.quantile(0.99),
            "longest ms": swarm.latencies.quantile(1),
            "server RSS before, MiB": before.resident / MIB,
            "server RSS peak, MiB": watch.peak / MIB,
            "server RSS after, MiB": after.resident / MIB,
            "its kernel queues, MiB": queued / MIB,
            "all TCP before, MiB": before.kernel / MIB,
            "all TCP peak, MiB": max(sample.kernel for sample in watch.samples) / MIB,
            "all TCP after, MiB": after.kernel / MIB,
            "healthy members lost": sum(peer.ended is not None for peer in swarm.peers),
            **drops(watch.samples),
            "stalled told": stalled.told,
            **cpu,
        }
        swarm.close()
        stalled.close()
    return figures


def drops(samples: list[Sample]) -> dict[str, float]:
    """How many connections the server gave up, and when the first and the last one."""
    at = [now.at - samples[0].at for last, now in pairwise(samples) if now.files < last.files]
    return {
        "dropped": samples[0].files - samples[-1].files,
        "first dropped, s": at[0] if at else 0,
        "last dropped, s": at[-1] if at else 0,
    }


def main() -> None:
    """Let the two rooms take turns and print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=40, help="messages/s to the room; 0: a closed loop (default: 40)")
    parser.add_argument("--window", type=int, default=8, help="messages in flight in a closed loop (default: 8)")
    parser.add_argument("--members", type=int, default=2_000, help="the stalled ones included (default: 2000)")
    parser.add_argument("--stalled", type=int, default=200, help="members that never read (default: 200)")
    parser.add_argument("--stalled-rcvbuf", type=int, default=0, help="their SO_RCVBUF (default: the kernel's)")
    parser.add_argument("--size", type=int, default=1_024, help="bytes of a message (default: 1024)")
    parser.add_argument(
        "--overflow", default="disconnect", choices=["disconnect", "drop_oldest", "drop_newest", "latest"]
    )
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--rounds", type=int, default=1, help="odd, so that there is a median (default: 1)")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    figures: dict[int, dict[str, list[float]]] = {0: {}, arguments.stalled: {}}
    for done in range(arguments.rounds):
        for stalled, of_run in figures.items():
            print(f"round {done + 1} of {arguments.rounds}, {stalled} stalled", end="\033[K\r", file=sys.stderr)
            for figure, value in measure(arguments, stalled).items():
                of_run.setdefault(figure, []).append(value)
    load = f"{arguments.rate:g} messages/s" if arguments.rate else f"{arguments.window} messages in flight"
    print(
        f"{platform.platform()}, Python {platform.python_version()}: {arguments.members - arguments.stalled} healthy "
        f"members, {load} of {arguments.size} bytes, {arguments.seconds:g} s, medians of {arguments.rounds} rounds"
    )
    without, beside = figures.values()
    print(f"{'':24} {'alone':>12} {f'+{arguments.stalled} stalled':>14}   ratio")
    for figure, values in beside.items():
        bar, value = statistics.median(without[figure]), statistics.median(values)
        print(f"{figure:24} {bar:12,.1f} {value:14,.1f}   {f'x {value / bar:.2f}' if bar else ''}")


if __name__ == "__main__":
    main()
