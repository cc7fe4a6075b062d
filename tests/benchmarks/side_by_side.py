"""trioroom beside its peers, one run on one machine: memory, handshakes, echo and fan-out.

    python tests/benchmarks/side_by_side.py TOOLS [CONTENDER...]

TOOLS is a directory with the load generator ``wsload.c``, the send loop ``sendloop.c`` (what the kernel
can do at most) and ``peers/``, minimal servers on other libraries. Servers run on core 0, the
generator on core 1. Figures drift from machine to machine: compare them within a run.
"""

from __future__ import annotations

import argparse
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
LOADS = {
    "memory": "hold -n 10000 -t 3",
    "echo": "echo -n 100 -t 3 -s 128",
    "fanout-1000-w1": "fanout -n 1000 -m 300 -w 1 -s 128",
    "fanout-10000-w1": "fanout -n 10000 -m 40 -w 1 -s 128",
    "fanout-10000-w32": "fanout -n 10000 -m 400 -w 32 -s 128",
}
FIGURE = re.compile(r"= (\d+)/s")


def main() -> None:
    """Measure each contender under each load and print a table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", type=Path)
    parser.add_argument("contenders", nargs="*", default=["trioroom", "picows", "websockets_asyncio", "trio_websocket"])
    parser.add_argument("--loads", nargs="*", default=list(LOADS), choices=list(LOADS))
    arguments = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as built:
        wsload = compile_c(arguments.tools / "wsload.c", Path(built))
        commands = {name: command_of(name, arguments.tools) for name in arguments.contenders}
        commands["sendloop"] = [compile_c(arguments.tools / "sendloop.c", Path(built))]
        for load in arguments.loads:
            for name, command in commands.items():
                if name != "sendloop" or load.startswith("fanout"):
                    print(f"{load:18} {name:20} {measure(command, wsload, load, name)}", flush=True)


def compile_c(source: Path, directory: Path) -> str:
    """The program built from ``source``."""
    program = directory / source.stem
    subprocess.run(["gcc", "-O2", "-o", program, source], check=True)
    return str(program)


def command_of(contender: str, tools: Path) -> list[str]:
    """How to start a contender; its port comes last."""
    script = HERE / "rooms.py" if contender == "trioroom" else tools / "peers" / f"{contender}_server.py"
    return [sys.executable, str(script)]


def measure(command: list[str], wsload: str, load: str, contender: str) -> str:
    """Run one load against a fresh server; the generator's last line, or the bytes per connection."""
    room = "/all" if contender == "trioroom" else "/"
    mode, *options = LOADS[load].split()
    with running(command) as (port, pid):
        before = resident_bytes(pid)
        generator = subprocess.Popen(
            ["taskset", "-c", "1", wsload, mode, "-p", str(port), "-u", "/echo" if mode == "echo" else room, *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert generator.stdout is not None
        opened = generator.stdout.readline().strip()
        time.sleep(1)
        held = (resident_bytes(pid) - before) / int(options[options.index("-n") + 1])
        rest = generator.stdout.read().strip()
        generator.wait()
    if mode == "hold":
        handshakes = FIGURE.search(opened)
        return f"{held:,.0f} bytes per connection; {handshakes[1] if handshakes else '?'} handshakes/s"
    return rest


@contextmanager
def running(command: list[str]) -> Iterator[tuple[int, int]]:
    """A server on a free port, on core 0; its port and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    server = subprocess.Popen(["taskset", "-c", "0", *command, str(port)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        time.sleep(0.5)
        if server.poll() is not None:
            raise SystemExit(f"{' '.join(command)} ended at once; run it by hand to see why")
        yield port, server.pid
    finally:
        server.kill()
        server.wait()


def resident_bytes(pid: int) -> int:
    """VmRSS of a process."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


if __name__ == "__main__":
    main()
