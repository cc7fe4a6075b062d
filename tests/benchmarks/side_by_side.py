"""trioroom beside its peers, one run on one machine: memory, handshakes, echo and fan-out.

    python -m tests.benchmarks.side_by_side TOOLS [CONTENDER...] [--rounds 5] [--loads echo ...]

TOOLS is a directory with the load generator ``wsload.c``, the send loop ``sendloop.c`` (what the kernel
can do at most) and ``peers/``, minimal servers on other libraries. A contender ``trioroom:NAME=VALUE,...``
is trioroom with these settings. Servers run on core 0, the
generator on core 1. Contenders take turns, and each figure is the median of its rounds: one round
may be a fifth off, and all of them drift from machine to machine. Compare figures within a run.
"""

from __future__ import annotations

import argparse
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.processes import resident_bytes, rooms_command, running

LOADS = {
    "memory": "hold -n 10000 -t 3",
    "echo": "echo -n 100 -t 3 -s 128",
    "fanout-1000-w1": "fanout -n 1000 -m 300 -w 1 -s 128",
    "fanout-10000-w1": "fanout -n 10000 -m 40 -w 1 -s 128",
    "fanout-10000-w32": "fanout -n 10000 -m 400 -w 32 -s 128",
}
OPENED = re.compile(r"= (\d+)/s handshake")
DONE = re.compile(r"= (\d+)/s; (?:whole-room )?p50 ([\d.]+)ms p99 ([\d.]+)ms")


def main() -> None:
    """Measure the contenders under each load and print a table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", type=Path)
    parser.add_argument("contenders", nargs="*", default=["trioroom", "picows", "websockets_asyncio", "trio_websocket"])
    parser.add_argument("--loads", nargs="*", default=list(LOADS), choices=list(LOADS))
    parser.add_argument("--rounds", type=int, default=5, help="odd, so that there is a median (default: 5)")
    arguments = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, median of {arguments.rounds} rounds")
    with tempfile.TemporaryDirectory() as built:
        wsload = compile_c(arguments.tools / "wsload.c", Path(built))
        commands = {name: command_of(name, arguments.tools) for name in arguments.contenders}
        sendloop = [compile_c(arguments.tools / "sendloop.c", Path(built))]
        for load in arguments.loads:
            # The send loop answers one message after another, so that it is no match for many in flight.
            contenders = {**commands, "sendloop": sendloop} if load.endswith("-w1") else commands
            report(load, compare(contenders, wsload, load, arguments.rounds))


def compare(contenders: dict[str, list[str]], wsload: str, load: str, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Every contender's figures, by name, from ``rounds`` rounds in which they take turns."""
    figures: dict[str, dict[str, list[float]]] = {name: {} for name in contenders}
    for done in range(rounds):
        for name, command in contenders.items():
            print(f"{load}: round {done + 1} of {rounds}, {name}", end="\033[K\r", file=sys.stderr, flush=True)
            for figure, value in measure(command, wsload, load, name).items():
                figures[name].setdefault(figure, []).append(value)
    return figures


def report(load: str, figures: dict[str, dict[str, list[float]]]) -> None:
    """One line for each contender and figure: the median, and its ratio to the first contender's."""
    first = next(iter(figures.values()))
    for name, of_name in figures.items():
        for figure, values in of_name.items():
            value = statistics.median(values)
            ratio = value / statistics.median(first[figure])
            print(f"{load:18} {name:20} {figure:22} {value:12,.1f}   x {ratio:.2f}", flush=True)


def compile_c(source: Path, directory: Path) -> str:
    """The program built from ``source``."""
    program = directory / source.stem
    subprocess.run(["gcc", "-O2", "-o", program, source], check=True)
    return str(program)


def command_of(contender: str, tools: Path) -> list[str]:
    """How to start a contender; its port comes last."""
    name, _, settings = contender.partition(":")
    if name == "trioroom":
        return rooms_command([assignment for assignment in settings.split(",") if assignment])
    return [sys.executable, str(tools / "peers" / f"{name}_server.py")]


def measure(command: list[str], wsload: str, load: str, contender: str) -> dict[str, float]:
    """Run one load against a fresh server."""
    room = "/all" if contender.startswith("trioroom") else "/"
    mode, *options = LOADS[load].split()
    with running(command) as (port, pid):
        before = resident_bytes(pid)
        generator = subprocess.Popen(
            ["taskset", "-c", "1", wsload, mode, "-p", str(port), "-u", "/echo" if mode == "echo" else room, *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert generator.stdout is not None
        opened = generator.stdout.readline()
        if mode == "hold":
            time.sleep(1)
            grown = resident_bytes(pid) - before
        rest = generator.stdout.read()
        generator.wait()
    if mode == "hold":
        handshakes = OPENED.search(opened)
        assert handshakes is not None, opened
        connections = int(options[options.index("-n") + 1])
        return {"bytes per connection": grown / connections, "handshakes/s": float(handshakes[1])}
    done = DONE.search(rest)
    assert done is not None, f"{contender} under {load}: {rest}"
    return {f"{mode}/s": float(done[1]), "p50 ms": float(done[2]), "p99 ms": float(done[3])}


if __name__ == "__main__":
    main()
