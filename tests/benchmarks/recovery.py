"""How long it takes until members who were away have what they missed, all coming back at once.

    python -m tests.benchmarks.recovery [--members 10000] [--missed 50] [--backplane redis|memory] [--rounds 3]

One member stays and publishes what the others miss. Then they connect, join with the position they had, and the clock
stops when each has its answer and all it missed, checked to be each message once and in order. Server on core 0, load
on core 1, redis-server where the kernel puts it. In further rounds other members do the same.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import msgspec
import trio

import trioroom
from tests.backplane.processes import free_port
from tests.backplane.redis.servers import binaries
from tests.benchmarks.processes import LOAD_CORE, CpuMeter, running
from tests.benchmarks.raw_peers import CLOSE, FIN, READ_BYTES, TEXT, close_code, frame, open_socket, split

ROOM = "room/a"
HEADERS = "Sec-WebSocket-Protocol: trioroom.v1.json\r\n"


class Kept(trioroom.Room):
    history = trioroom.History(size=1_000, ttl=600)


async def serve(port: int, url: str) -> None:
    """The server's side."""
    app = trioroom.App()
    app.route("room/{name}", Kept)
    settings = trioroom.Settings(max_message_rate=1e9, message_burst=1_000_000)
    async with (
        trioroom.open_backplane(url) as backplane,
        trioroom.open_server(app, port=port, settings=settings, backplane=backplane),
    ):
        await trio.sleep_forever()


@attrs.define(eq=False)
class Member:
    """One connection that speaks v1."""

    socket: socket.socket
    rest: bytes = b""
    envelopes: list[dict[str, object]] = attrs.field(factory=list)
    frames: int = 0

    def ask(self, **envelope: object) -> None:
        """Send a request; it is small enough for any kernel."""
        self.socket.sendall(frame(msgspec.json.encode(envelope), FIN | TEXT))

    def read(self) -> None:
        """Take in what has come."""
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise SystemExit("the server closed a connection")
        payload = self.rest + data
        frames, self.rest = split(payload)
        for opcode, start, end in frames:
            if opcode == CLOSE:
                raise SystemExit(f"the server closed a connection with {close_code(payload[start:end])}")
            if opcode == TEXT:
                self.envelopes.append(msgspec.json.decode(payload[start:end]))

    def wait(self, type: str) -> dict[str, object]:
        """The first envelope of this type; what came before is dropped."""
        while True:
            while self.envelopes:
                envelope = self.envelopes.pop(0)
                if envelope["type"] == type:
                    return envelope
            self.read()


def connect(port: int) -> Member:
    """A connection that the server has taken, and that blocks."""
    sock, rest = open_socket(port, "/", headers=HEADERS)
    sock.settimeout(10)
    member = Member(sock)
    frames, member.rest = split(rest)
    member.envelopes += [msgspec.json.decode(rest[start:end]) for _, start, end in frames]
    return member


def come_back(port: int, members: int, position: object, missed: int) -> list[Member]:
    """All of them, until each has all it missed."""
    poll = select.epoll()
    waiting: dict[int, Member] = {}
    everybody: list[Member] = []

    def look(timeout: float) -> None:
        for number, _ in poll.poll(timeout, 256):
            member = waiting[number]
            member.read()
            if len(member.envelopes) >= missed + 2 - (member.envelopes[0]["type"] != "hello"):
                poll.unregister(number)
                del waiting[number]

    for _ in range(members):
        member = connect(port)
        member.ask(type="join", id=1, room=ROOM, position=position)
        everybody.append(member)
        waiting[member.socket.fileno()] = member
        poll.register(member.socket, select.EPOLLIN)
        look(0)
    while waiting:
        look(10)
    return everybody


def check(members: list[Member], missed: int) -> None:
    """Each has the answer and then all it missed, once and in order."""
    for member in members:
        envelopes = [envelope for envelope in member.envelopes if envelope["type"] != "hello"]
        assert envelopes[0]["type"] == "ok", envelopes[0]
        assert envelopes[0]["recovered"] is True, envelopes[0]
        assert [envelope["data"][0] for envelope in envelopes[1:]] == list(range(missed)), envelopes  # type: ignore[index]


@contextmanager
def broker(kind: str) -> Iterator[str]:
    """Its URL."""
    if kind == "memory":
        yield "memory"
        return
    binary, port = next(iter(binaries().values())), free_port()
    with tempfile.TemporaryDirectory() as directory:
        options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory)
        server = subprocess.Popen([str(binary), *options], stdout=subprocess.DEVNULL)
        try:
            time.sleep(0.5)
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.kill()
            server.wait()


def run(port: int, options: argparse.Namespace) -> float:
    """One round; its seconds."""
    stays = connect(port)
    stays.ask(type="join", id=1, room=ROOM)
    position = stays.wait("ok")["position"]
    text = "x" * options.size
    for number in range(options.missed):
        stays.ask(type="publish", id=number + 2, room=ROOM, data=[number, text])
        stays.wait("ok")
    began = time.perf_counter()
    members = come_back(port, options.members, position, options.missed)
    took = time.perf_counter() - began
    check(members, options.missed)
    for member in (*members, stays):
        member.socket.close()
    return took


def main() -> None:
    """Run it as the command line says."""
    if sys.argv[1:2] == ["serve"]:
        return trio.run(serve, int(sys.argv[3]), sys.argv[2])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--missed", type=int, default=50)
    parser.add_argument("--size", type=int, default=128, help="bytes of each message")
    parser.add_argument("--backplane", choices=("redis", "memory"), default="redis")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    script = str(Path(__file__))
    with broker(options.backplane) as url, running([sys.executable, script, "serve", url]) as (port, pid):
        for _ in range(options.rounds):
            meter = CpuMeter(pid)
            took = run(port, options)
            each = f"{options.missed} missed messages of {options.size} bytes each"
            used = ", ".join(f"{name} {share:.0f}" for name, share in meter.figures().items())
            print(f"{options.members} members, {each}: {took:.2f} s; {used}", flush=True)
            time.sleep(1)


if __name__ == "__main__":
    main()
