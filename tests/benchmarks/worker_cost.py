"""What ``--workers N`` costs: seconds until all serve, and memory of each worker before and after connections.

    python -m tests.benchmarks.worker_cost 20
    python -m tests.benchmarks.worker_cost 4 --members 3000     # as many come to each worker, and go

Run it on a quiet machine: how long workers take to start is how much of the processors they get.
"""

from __future__ import annotations

import argparse
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.processes import cpu_seconds

TRIOROOM = [sys.executable, "-m", "trioroom"]
SERVE = "serve trioroom.bench.app:app --backplane embedded --port-per-worker --log-level error"
SETTLE = 3.0  # seconds: what a worker does once it serves


def parents() -> dict[int, int]:
    """Of each process, its parent."""
    found: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return found


def tree(root: int) -> list[int]:
    """``root`` and its descendants that are ``trioroom`` processes."""
    of, found = parents(), [root]
    for pid in found:
        found += [child for child, parent in of.items() if parent == pid and b"trioroom\0serve" in command(child)]
    return found


def command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def workers(root: int) -> list[int]:
    """Those that serve: the leaves of the tree."""
    of = parents()
    members = tree(root)
    return [pid for pid in members if pid not in {of[member] for member in members}]


def memory(pid: int) -> tuple[float, float]:
    """MB that are its own alone, and MB with its share of what it has in common with others."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = {name: int(value) for name, value in re.findall(r"(\w+):\s+(\d+) kB", rollup)}
    return (kilobytes["Private_Dirty"] + kilobytes["Private_Clean"]) / 1000, kilobytes["Pss"] / 1000


def report(root: int, moment: str) -> None:
    own = [memory(pid)[0] for pid in workers(root)]
    everything = sum(memory(pid)[1] for pid in tree(root))
    print(f"{moment}: {statistics.median(own):.1f} MB of its own for each of {len(own)} workers", end="")
    print(f" ({min(own):.1f} to {max(own):.1f}), {everything:.0f} MB in all", flush=True)


def wait_ports(server: subprocess.Popen[str], count: int) -> list[str]:
    """Of all workers, once all serve."""
    assert server.stdout is not None
    ports: list[str] = []
    while len(ports) < count:
        line = server.stdout.readline()
        if not line:
            raise SystemExit("the server ended")
        ports += re.findall(r"trioroom serves http://127\.0\.0\.1:(\d+)/", line)
    return ports


def main() -> None:
    """Start it, look, let members come and go, look again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workers", type=int)
    parser.add_argument("--port", type=int, default=19_700, help="of the first worker; the others have those after it")
    parser.add_argument("--members", type=int, default=0, help="of each worker")
    chosen = parser.parse_args()
    arguments = [*SERVE.split(), "--workers", str(chosen.workers), "--port", str(chosen.port)]
    began = time.monotonic()
    server = subprocess.Popen([*TRIOROOM, *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        ports = wait_ports(server, chosen.workers)
        took = time.monotonic() - began
        spent = sum(cpu_seconds(pid) for pid in tree(server.pid))
        print(f"{chosen.workers} workers serve after {took:.2f} s, {spent:.2f} s of processors", flush=True)
        time.sleep(SETTLE)
        report(server.pid, "idle")
        if chosen.members:
            urls = [f"ws://127.0.0.1:{port}/all" for port in ports]
            load = ["bench", "connect", *urls, "--members", str(chosen.members * chosen.workers)]
            subprocess.run([*TRIOROOM, *load], check=True, stdout=subprocess.DEVNULL)
            time.sleep(SETTLE)
            report(server.pid, f"after {chosen.members} connections each")
        began = time.monotonic()
        server.send_signal(signal.SIGTERM)
        server.communicate()
        print(f"ended after {time.monotonic() - began:.2f} s")
    finally:
        server.kill()


if __name__ == "__main__":
    main()
