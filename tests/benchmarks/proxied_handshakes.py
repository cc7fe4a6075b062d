"""What a handshake behind a proxy costs: alone, with an address that is not believed, and with one that is.

    python -m tests.benchmarks.proxied_handshakes [--rounds 12] [--handshakes 256] [--held 2000]

CPU time of the server by its schedstat, with the close; servers run side by side and take turns, and the lower
quartile of their rounds is told, as the machine may have other work. Then the resident memory of connections that are
held.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
from base64 import b64encode
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import attrs

from tests.benchmarks.processes import resident_bytes, rooms_command, running

TRUSTED = "trusted_proxies=127.0.0.1"
PER_ADDRESS = "max_connections_per_address=100"


@attrs.frozen
class Contender:
    """A server and how its peers ask."""

    name: str
    settings: list[str]
    lines: Callable[[int], str]
    """Header lines of the peer of a number, each with its end."""


def forwarded(number: int) -> str:
    return f"X-Forwarded-For: 10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}\r\n"


CONTENDERS = [
    Contender("no proxy", [], lambda number: ""),
    Contender("no proxy, bound for an address", ["max_connections_per_address=100000"], lambda number: ""),
    Contender("proxy, not trusted", [], forwarded),
    Contender("proxy, trusted", [TRUSTED], forwarded),
    Contender("proxy, trusted, bound for an address", [TRUSTED, PER_ADDRESS], forwarded),
    Contender(
        "proxy, trusted, an id for each request", [TRUSTED], lambda number: f"{forwarded(number)}X-Id: {number}\r\n"
    ),
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--handshakes", type=int, default=256)
    parser.add_argument("--held", type=int, default=2_000)
    options = parser.parse_args()
    with ExitStack() as stack:
        servers = [stack.enter_context(running(rooms_command(each.settings))) for each in CONTENDERS]
        costs: list[list[float]] = [[] for _ in CONTENDERS]
        for done in range(options.rounds):
            for contender, (port, pid), of_contender in zip(CONTENDERS, servers, costs, strict=True):
                before = cpu_nanoseconds(pid)
                for number in range(options.handshakes):
                    shake_hands(port, contender.lines(done * options.handshakes + number)).close()
                of_contender.append((cpu_nanoseconds(pid) - before) / options.handshakes / 1_000)
        for contender, (port, pid), of_contender in zip(CONTENDERS, servers, costs, strict=True):
            cost, held = statistics.quantiles(of_contender, n=4)[0], held_bytes(contender, port, pid, options.held)
            print(f"{contender.name:40} {cost:6.1f} us {held:7,.0f} bytes", flush=True)


def held_bytes(contender: Contender, port: int, pid: int, count: int) -> float:
    """Resident memory of one of ``count`` connections that are held."""
    before = resident_bytes(pid)
    held = [shake_hands(port, contender.lines(1_000_000 + number)) for number in range(count)]
    grown = resident_bytes(pid) - before
    for sock in held:
        sock.close()
    return grown / count


def shake_hands(port: int, lines: str) -> socket.socket:
    """A member."""
    sock = socket.create_connection(("127.0.0.1", port))
    key = b64encode(os.urandom(16)).decode()
    sock.sendall(
        f"GET /all HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{lines}User-Agent: benchmark\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = sock.recv(1_024)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    return sock


def cpu_nanoseconds(pid: int) -> int:
    """What a process has used."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


if __name__ == "__main__":
    main()
