"""What a second worker is worth with many small rooms: CPU of each server process for a delivery.

    python -m tests.benchmarks.workers [--members 5000] [--room-size 5] [--seconds 5] [--rounds 3]

`trioroom serve` with one worker alone, and with one and two that a broker of the extra ``embedded`` links; the load is
`trioroom bench rooms`. Where the load generator shares the cores with the server the rate cannot show what more
workers do, so CPU is counted: a server with a core for each of its processes can do no more deliveries than its
busiest process has time for. "bound" is that, and the last column how it compares with one worker and the broker.
Members of one room are on both workers, as the kernel spreads them: each publication then is taken in twice, and sent
once to each member.
"""

from __future__ import annotations

import argparse
import json
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs

from tests.benchmarks.processes import accepts, cpu_seconds, wait_until

SETUPS = {"1 worker, memory": (1, "memory"), "1 worker, broker": (1, "embedded"), "2 workers, broker": (2, "embedded")}
BASE = "1 worker, broker"
START = 20.0  # seconds a server may take to be there


@attrs.frozen
class Cost:
    """Microseconds of CPU for a delivery."""

    total: float
    busiest: float
    """Of the process that used most."""
    rate: float
    """Deliveries a second, with the load on the same machine."""

    @property
    def bound(self) -> float:
        """Deliveries a second when the busiest process has a core of its own, and uses all of it."""
        return 1e6 / self.busiest


def measure(workers: int, backplane: str, arguments: argparse.Namespace) -> Cost:
    """One run against a fresh server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    serve = [
        *(sys.executable, "-m", "trioroom", "serve", "tests.benchmarks.rooms:app", f"--port={port}"),
        *(f"--workers={workers}", f"--backplane={backplane}", "--set=max_message_rate=inf"),
    ]
    server = subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: accepts(port), START, "the server to accept")
        return load(port, server.pid, arguments)
    finally:
        server.terminate()
        server.wait()


def load(port: int, pid: int, arguments: argparse.Namespace) -> Cost:
    """Let the bench run; its output says when the load begins, and then what came of it."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        bench = [
            *(sys.executable, "-m", "trioroom", "bench", "rooms", f"ws://127.0.0.1:{port}/chat/{{n}}"),
            *(f"--members={arguments.members}", f"--room-size={arguments.room_size}"),
            *(f"--duration={arguments.seconds}", f"--json={report}"),
        ]
        before: dict[int, float] = {}
        with subprocess.Popen(bench, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
            assert run.stdout is not None
            for line in run.stdout:
                if line.strip() == "load":
                    before = used(pid)
                elif "deliveries" in line:  # the table is printed when the load is over
                    break
            after = used(pid)
            run.stdout.read()
        if run.returncode:
            raise SystemExit("the bench failed; run it by hand to see why")
        figures = {figure["name"]: figure["value"] for figure in json.loads(report.read_text())["figures"]}
    spent = [seconds - before.get(process, 0.0) for process, seconds in after.items()]
    deliveries = figures["deliveries"]
    return Cost(1e6 * sum(spent) / deliveries, 1e6 * max(spent) / deliveries, figures["deliveries/s"])


def used(pid: int) -> dict[int, float]:
    """CPU seconds of a process and of all that it has started."""
    found = {pid: cpu_seconds(pid)}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found |= used(int(child))
    return found


def main() -> None:
    """Let the setups take turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=5_000)
    parser.add_argument("--room-size", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3, help="odd, so that there is a median (default: 3)")
    arguments = parser.parse_args()
    costs: dict[str, list[Cost]] = {name: [] for name in SETUPS}
    for done in range(arguments.rounds):
        for name, setup in SETUPS.items():
            print(f"round {done + 1} of {arguments.rounds}, {name}", end="\033[K\r", file=sys.stderr, flush=True)
            costs[name].append(measure(*setup, arguments))
    rooms = arguments.members // arguments.room_size
    print(f"{platform.platform()}, Python {platform.python_version()}, {rooms} rooms of {arguments.room_size}")
    print(f"{'':20}{'us, total':>12}{'us, busiest':>14}{'bound/s':>12}{'rate/s':>12}")
    base = statistics.median(cost.bound for cost in costs[BASE])
    for name, of_name in costs.items():
        total, busiest, bound, rate = (
            statistics.median(getattr(cost, figure) for cost in of_name)
            for figure in ("total", "busiest", "bound", "rate")
        )
        print(f"{name:20}{total:12.1f}{busiest:14.1f}{bound:12,.0f}{rate:12,.0f}   x {bound / base:.2f}")


if __name__ == "__main__":
    main()
