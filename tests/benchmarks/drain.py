"""What members notice of a rolling restart, and of the end of one worker, while messages are published all the time.

    python -m tests.benchmarks.drain [--members 5000] [--stalled 100] [--rate 10] [--way rolling worker]

`trioroom serve --workers 2` with a Redis beside it, and a room with a history. All members speak v1 and come back when
their ``bye`` tells them to, with their position; ``--stalled`` of them stop reading once they have joined. ``rolling``
sends SIGHUP to the parent, ``worker`` sends SIGTERM to a worker, which the parent replaces. Printed are messages lost
and got twice, how long each worker took to drain, and a histogram of the moments at which members began to reconnect.
The exit code is 1 if anything was lost, came twice, or took longer than ``drain_timeout``.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import attrs
import trio

import trioroom
from tests.backplane.processes import free_port
from tests.backplane.redis.servers import binaries
from tests.benchmarks.drain_members import Counts, Crowd
from tests.benchmarks.processes import accepts, wait_until
from trioroom._wire.publication import encode_publication
from trioroom.cli.assignments import parse_settings
from trioroom.settings import Settings

ROOM = "kept/a"
HISTORY = trioroom.History(size=10_000, ttl=600)
BAR = 0.1  # seconds of the histogram
_SLACK = 1.0  # seconds that a process takes to end once it has drained, on a busy machine
_PATIENCE = 120.0  # seconds until a run is given up
_DRAINS = re.compile(r"worker \d of \d: pid (\d+) serves, pid (\d+) drains")


class Kept(trioroom.Room):
    history = HISTORY


app = trioroom.App()
app.route("kept/{name}", Kept)


@attrs.define
class Outcome:
    """Of one way to drain."""

    way: str
    counts: Counts
    began: float
    drains: list[float]
    """Seconds that each worker took from when it was told to its end."""
    took: float
    published: int
    lost: int
    duplicates: int
    exit_code: int


class Server:
    """A `trioroom serve` with two workers; made by `serving`."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port
        self.lines: list[str] = []
        self.drains: list[float] = []
        self._draining = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def has_said(self, text: str) -> bool:
        """Whether it has, in a line."""
        return any(text in line for line in self.lines)

    @property
    def is_draining(self) -> bool:
        """Whether a worker that was told to has not ended yet."""
        return bool(self._draining)

    def time_end(self, pid: int) -> None:
        """Measure how long this worker takes to end, which is told to now."""
        self._draining += 1
        threading.Thread(target=self._wait_end, args=(pid, time.monotonic()), daemon=True).start()

    def close(self) -> None:
        """Once it has ended."""
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def workers(self) -> list[int]:
        """Their pids, from what it has said."""
        return [int(found[1]) for line in self.lines if (found := re.search(r"serves \(pid (\d+)\)", line))]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := _DRAINS.search(line):
                self.time_end(int(found[2]))
            self.lines.append(line)

    def _wait_end(self, pid: int, began: float) -> None:
        descriptor = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()
        os.close(descriptor)
        self.drains.append(time.monotonic() - began)
        self._draining -= 1


@contextmanager
def broker() -> Iterator[str]:
    """A Redis of our own; its URL."""
    binary, port = next(iter(binaries().values())), free_port()
    with tempfile.TemporaryDirectory() as directory:
        options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory)
        process = subprocess.Popen([str(binary), *options], stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: accepts(port), 20, "the broker")
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


@contextmanager
def serving(url: str, settings: list[str]) -> Iterator[Server]:
    """The server, which has to be ended."""
    port = free_port()
    command = [sys.executable, "-m", "trioroom", "serve", "tests.benchmarks.drain:app", "--port", str(port)]
    command += ["--workers", "2", "--backplane", url, "--log-level", "debug", *(f"--set={each}" for each in settings)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    server = Server(process, port)
    try:
        wait_until(lambda: server.has_said("trioroom serves"), 30, "the server to serve")
        yield server
    finally:
        process.kill()
        process.wait()
        server.close()


class Publisher(threading.Thread):
    """Publishes past the servers until it is stopped, as `trioroom publish --backplane` does."""

    def __init__(self, url: str, rate: float) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._rate = rate
        self._stopped = False
        self.last = 0
        """The offset of the latest message."""

    def run(self) -> None:
        """See `threading.Thread`."""
        trio.run(self._publish)

    def stop(self) -> int:
        """The offset of the last message."""
        self._stopped = True
        self.join()
        return self.last

    async def _publish(self) -> None:
        async with trioroom.open_backplane(self._url) as backplane:
            assert backplane.history is not None
            while not self._stopped:
                published = await backplane.history.publish(ROOM, encode_publication("x" * 100), HISTORY)
                assert published is not None
                self.last = published.offset
                await trio.sleep(1 / self._rate)


def drain(way: str, members: int, stalled: int, rate: float, settings: list[str]) -> Outcome:
    """Run it once."""
    with ExitStack() as stack:
        url = stack.enter_context(broker())
        server = stack.enter_context(serving(url, settings))
        crowd = Crowd(server.port, ROOM, members, stalled)
        stack.callback(crowd.close)
        crowd.assemble(_PATIENCE)
        publisher = Publisher(url, rate)
        publisher.start()
        crowd.run(_PATIENCE, lambda: publisher.last >= 3, "the first messages")
        began = time.monotonic()
        begin(way, server)
        crowd.run(_PATIENCE, lambda: is_over(way, server), "the drain to end")
        took = time.monotonic() - began
        crowd.run(_PATIENCE, lambda: all(member.joined for member in crowd.readers), "all to be back")
        last = publisher.stop()
        crowd.run(_PATIENCE, lambda: all(member.offset >= last for member in crowd.readers), "the last messages")
        return Outcome(
            way,
            copy.deepcopy(crowd.counts),
            began,
            server.drains,
            took,
            published=last,
            lost=sum(member.lost for member in crowd.readers),
            duplicates=sum(member.duplicates for member in crowd.readers),
            exit_code=stop(server, crowd),
        )


def begin(way: str, server: Server) -> None:
    """Send the signal."""
    if way == "rolling":
        server.process.send_signal(signal.SIGHUP)
    else:
        pid = server.workers()[0]
        server.time_end(pid)
        os.kill(pid, signal.SIGTERM)


def is_over(way: str, server: Server) -> bool:
    """Whether all have drained that were to."""
    if way == "rolling" and not server.has_said("restarted 2 workers"):
        return False
    return bool(server.drains) and not server.is_draining


def stop(server: Server, crowd: Crowd) -> int:
    """End the server as a service manager does; its exit code."""
    crowd.comes_back = False
    server.process.terminate()
    crowd.run(_PATIENCE, lambda: server.process.poll() is not None, "the server to end")
    return server.process.wait()


def report(outcome: Outcome, members: int, stalled: int, settings: Settings) -> bool:
    """Print it; whether all was well."""
    counts = outcome.counts
    rows = {
        "members": f"{members:,}, of which {stalled} do not read",
        "published meanwhile": f"{outcome.published:,}",
        "lost": f"{outcome.lost:,}",
        "duplicates": f"{outcome.duplicates:,}",
        "reconnects": f"{len(counts.returns):,}",
        "recovered": f"{counts.recovered:,}, not recovered {counts.not_recovered}, gaps {counts.gaps}",
        "tries that failed": f"{counts.failed_tries:,}",
        "closed with": ", ".join(f"{code} x {number:,}" for code, number in counts.codes.most_common()),
        "drain of each worker": ", ".join(f"{seconds:.1f} s" for seconds in outcome.drains),
        "all of it": f"{outcome.took:.1f} s",
        "exit code": str(outcome.exit_code),
    }
    print(f"\n{outcome.way}: 2 workers, drain_timeout={settings.drain_timeout:g}, rate={settings.reconnect_rate:g}")
    for name, value in rows.items():
        print(f"  {name:22}{value}")
    print_histogram([at - outcome.began for at in counts.returns])
    in_time = max(outcome.drains) <= settings.drain_delay + settings.drain_timeout + _SLACK
    complete = not (outcome.lost or outcome.duplicates or counts.not_recovered or counts.gaps)
    return in_time and complete and outcome.exit_code == 0


def print_histogram(times: list[float]) -> None:
    """Reconnects in each `BAR`."""
    bars = Counter(int(seconds / BAR) for seconds in times)
    most = max(bars.values(), default=1)
    for bar in range(min(bars, default=0), max(bars, default=-1) + 1):
        if not bars[bar]:
            if bars[bar - 1]:
                print("         ...")
            continue
        print(f"  {bar * BAR:6.1f} s {bars[bar]:6d} {'#' * round(60 * bars[bar] / most)}")


def main() -> None:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=5_000)
    parser.add_argument("--stalled", type=int, default=100, help="members that do not read")
    parser.add_argument("--rate", type=float, default=10.0, help="messages a second")
    parser.add_argument("--way", nargs="+", choices=("rolling", "worker"), default=["rolling", "worker"])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server")
    options = parser.parse_args()
    settings = parse_settings(options.set)
    print(f"{platform.platform()}, Python {platform.python_version()}")
    well = True
    for way in options.way:
        outcome = drain(way, options.members, options.stalled, options.rate, options.set)
        well = report(outcome, options.members, options.stalled, settings) and well
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
