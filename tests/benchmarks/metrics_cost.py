"""What counting for ``/metrics`` costs: CPU of a server that does, beside one of another checkout that does not.

    python -m tests.benchmarks.metrics_cost CHECKOUT [--loads echo fanout rooms handshakes] [--rounds 300]

CHECKOUT is a directory with the trioroom to compare with. Both servers run all the time, on core 0, and take turns
with one unit of load, so that whatever else the machine does hits both alike. What counts is the time that the kernel
gave a server for a unit, to the nanosecond: a busy machine makes that longer, but by far not as much as it makes the
unit last; units are small, so that some of them have the core for themselves. Prints for each load microseconds for
one message (delivery, handshake), the best and the median of each server, and the ratios: of the best ones, and the
median of those of neighbours.
"""

from __future__ import annotations

import argparse
import os
import platform
import select
import socket
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from tests.benchmarks.processes import LOAD_CORE, rooms_command, running
from tests.benchmarks.raw_peers import frame, open_socket

PAYLOAD = bytes(128)
SENT = frame(PAYLOAD)
RECEIVED_BYTES = len(PAYLOAD) + 4  # as the server frames it
READ_BYTES = 1 << 18
OWN = Path(__file__).parent.parent.parent


class Crowd:
    """Connections to one server, whose bytes are counted and not looked at."""

    def __init__(self, port: int, path: str, members: int) -> None:
        self.sockets = [open_socket(port, path)[0] for _ in range(members)]
        self._epoll = select.epoll()
        self._by_file = {sock.fileno(): sock for sock in self.sockets}
        for file in self._by_file:
            self._epoll.register(file, select.EPOLLIN)

    def say(self, *speakers: int) -> None:
        """One message of each."""
        for speaker in speakers:
            self.sockets[speaker].send(SENT)

    def hear(self, messages: int) -> None:
        """Wait until so many have come, to anybody."""
        left = messages * RECEIVED_BYTES
        while left > 0:
            for file, _ in self._epoll.poll():
                left -= len(self._by_file[file].recv(READ_BYTES))


@attrs.frozen
class Load:
    """What one unit of it is."""

    paths: tuple[str, ...]
    """Of its rooms."""
    members: int
    """Of each room."""
    units: int
    """How often everybody speaks in one."""
    speakers: int
    """Of each room."""

    def open(self, port: int) -> Callable[[], int]:
        """What does one unit, and says how many messages have arrived."""
        crowds = [Crowd(port, path, self.members) for path in self.paths]
        heard = self.speakers * (1 if self.paths == ("/echo",) else self.members)

        def run() -> int:
            for _ in range(self.units):
                for crowd in crowds:
                    crowd.say(*range(self.speakers))
                for crowd in crowds:
                    crowd.hear(heard)
            return self.units * heard * len(crowds)

        return run


def open_handshakes(port: int) -> Callable[[], int]:
    """Connections that come, and go in one go."""
    connections = 50

    def run() -> int:
        opened = [open_socket(port, "/all")[0] for _ in range(connections)]
        for sock in opened:
            sock.shutdown(socket.SHUT_WR)
        for sock in opened:
            sock.setblocking(True)
            while sock.recv(READ_BYTES):  # until the server has let go of it
                pass
            sock.close()
        return connections

    return run


LOADS: dict[str, Callable[[int], Callable[[], int]]] = {
    "echo": Load(("/echo",), 100, 5, 100).open,
    "fanout": Load(("/all",), 1_000, 2, 1).open,
    "fanout-batched": Load(("/all",), 1_000, 1, 32).open,
    "rooms": Load(tuple(f"/chat/{number}" for number in range(100)), 5, 1, 1).open,
    "handshakes": open_handshakes,
}


def cpu_nanoseconds(pid: int) -> int:
    """What the kernel has given a process (proc(5), ``schedstat``); all but its main thread have nothing to do."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


@contextmanager
def open_server(checkout: Path) -> Iterator[tuple[int, int]]:
    """The rooms of the benchmarks on that trioroom; port and process."""
    command = ["env", f"PYTHONPATH={checkout}", *rooms_command(["max_message_rate=inf", "ping_interval=inf"])]
    with running(command) as (port, pid):
        yield port, pid


def measure(load: str, checkouts: dict[str, Path], rounds: int) -> dict[str, list[float]]:
    """Microseconds for one message, of each unit."""
    found: dict[str, list[float]] = {name: [] for name in checkouts}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(open_server(checkout)) for name, checkout in checkouts.items()}
        units = {name: LOADS[load](port) for name, (port, _) in servers.items()}
        for done in range(-2, rounds):  # two to warm up
            for name in list(units) if done % 2 else reversed(units):
                pid = servers[name][1]
                before = cpu_nanoseconds(pid)
                messages = units[name]()
                if done >= 0:
                    found[name].append((cpu_nanoseconds(pid) - before) / messages / 1_000)
            if not done % 10:
                print(f"{load}: round {done + 1} of {rounds}", end="\033[K\r", file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Compare under each load and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--loads", nargs="+", default=list(LOADS), choices=list(LOADS))
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    checkouts = {"with": OWN, "without": arguments.checkout.resolve()}
    print(f"{platform.platform()}, Python {platform.python_version()}, {arguments.rounds} rounds")
    print("load               us, best: with, without, ratio      median: with, without, ratio of neighbours")
    for load in arguments.loads:
        ours, theirs = measure(load, checkouts, arguments.rounds).values()
        neighbours = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
        best = f"{min(ours):8.3f} {min(theirs):8.3f} {min(ours) / min(theirs):6.3f}"
        median = f"{statistics.median(ours):8.3f} {statistics.median(theirs):8.3f} {neighbours:6.3f}"
        print(f"{load:16} {best}     {median}", flush=True)


if __name__ == "__main__":
    main()
