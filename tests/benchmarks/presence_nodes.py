"""What others see when a server with 1,000 members dies or is stopped, and what presence costs while nothing happens.

    python -m tests.benchmarks.presence_nodes [--members 1000] [--lease 30] [--idle 60]

Two servers on one Redis. The members are with one of them, in a process of its own; with the other one there is a
witness, whose pushes are counted: who joined, who left, how often. First nothing happens for ``--idle`` seconds while
the commands to Redis are counted, then the process is stopped for longer than its lease and goes on, then it is killed.
"""

from __future__ import annotations

import argparse
import math
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

import trioroom
from tests.backplane.processes import free_port
from tests.backplane.redis.servers import RedisServer, binaries, open_redis_server
from tests.benchmarks.raw_peers import open_socket
from trioroom.testing import V1Peer, open_v1_peer

ROOM = "room/a"
# The members answer no pings.
SETTINGS = trioroom.Settings(close_timeout=1.0, leave_timeout=1.0, drain_timeout=1.0, ping_interval=math.inf)


class Present(trioroom.Room):
    presence = trioroom.Presence(max_listed=10_000)


@asynccontextmanager
async def open_present(url: str, port: int) -> AsyncIterator[trioroom.Server]:
    """A server."""
    app = trioroom.App()
    app.route("room/{name}", Present)
    async with (
        trioroom.open_backplane(url) as backplane,
        trioroom.open_server(app, port=port, settings=SETTINGS, backplane=backplane) as server,
    ):
        yield server


async def serve(url: str, port: int) -> None:
    """The process that will die."""
    async with open_present(url, port):
        await trio.sleep_forever()


class Witness:
    """A member of the other server, and what it is told."""

    def __init__(self) -> None:
        self.count = 0
        self.joined: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.pushes = 0
        self._news = trio.Event()

    async def listen(self, peer: V1Peer) -> None:
        """Until cancelled."""
        while True:
            push = await peer.receive()
            self.pushes += 1
            self.count = push["count"]
            self.joined.update(present["user"] for present in push.get("joined", ()))
            self.left.update(push.get("left", ()))
            self._news.set()
            self._news = trio.Event()

    async def time_until(self, count: int) -> float:
        """Seconds until so many are there; from now on joins and leaves are counted anew."""
        began = trio.current_time()
        self.joined.clear()
        self.left.clear()
        while self.count != count:
            await self._news.wait()
        return trio.current_time() - began

    def told(self) -> str:
        """How often whom, since `time_until`."""
        twice = sum(times > 1 for times in (self.joined + self.left).values())
        return f"{self.joined.total()} joins and {self.left.total()} leaves told, {twice} users of which more than once"


async def commands(server: RedisServer) -> Counter[str]:
    """Calls by their names, those that scripts make left out."""
    lines = (await server.command("INFO", "commandstats")).decode().splitlines()
    calls: Counter[str] = Counter()
    for line in lines:
        if line.startswith("cmdstat_"):
            name, _, rest = line.removeprefix("cmdstat_").partition(":calls=")
            calls[name] = int(rest.partition(",")[0])
    return calls


def start(url: str, port: int) -> subprocess.Popen[bytes]:
    """A server in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "tests.benchmarks.presence_nodes", "serve", url, str(port)])


async def run(options: argparse.Namespace) -> None:
    """All three parts."""
    port = free_port()
    async with open_redis_server(next(iter(binaries().values()))) as redis:
        url = f"{redis.url}?presence_lease={options.lease}"
        process = start(url, port)
        try:
            async with (
                open_present(url, 0) as server,
                open_v1_peer(server, tcp=True) as peer,
                trio.open_nursery() as nursery,
            ):
                witness = Witness()
                await peer.request("join", room=ROOM)
                nursery.start_soon(witness.listen, peer)
                await trio.sleep(2)
                sockets = [open_socket(port, f"/{ROOM}")[0] for _ in range(options.members)]
                await witness.time_until(options.members + 1)
                await idle(redis, options.idle)
                await stop_and_go_on(process, witness, options)
                await kill(process, witness, options)
                for sock in sockets:
                    sock.close()
                nursery.cancel_scope.cancel()
        finally:
            process.kill()
            process.wait()


async def idle(redis: RedisServer, seconds: float) -> None:
    """What both nodes ask of Redis."""
    before = await commands(redis)
    await trio.sleep(seconds)
    calls = await commands(redis) - before
    probes, scripts = calls["publish"], calls["evalsha"] + calls["eval"]
    each = 60 / seconds / 2
    print(f"idle: {scripts * each:.1f} commands a minute for presence and {probes * each:.1f} probes, for each node")


async def stop_and_go_on(process: subprocess.Popen[bytes], witness: Witness, options: argparse.Namespace) -> None:
    """For longer than the lease."""
    process.send_signal(signal.SIGSTOP)
    took = await witness.time_until(1)
    print(f"stopped: all gone after {took:.1f} s, lease {options.lease:g}; {witness.told()}", flush=True)
    await trio.sleep(5)
    process.send_signal(signal.SIGCONT)
    took = await witness.time_until(options.members + 1)
    print(f"going on: all back after {took:.1f} s; {witness.told()}", flush=True)
    await trio.sleep(3)


async def kill(process: subprocess.Popen[bytes], witness: Witness, options: argparse.Namespace) -> None:
    """Without a word."""
    process.kill()
    took = await witness.time_until(1)
    print(f"killed: all gone after {took:.1f} s, lease {options.lease:g}; {witness.told()}", flush=True)


def main() -> None:
    """Run it as the command line says."""
    if sys.argv[1:2] == ["serve"]:
        return trio.run(serve, sys.argv[2], int(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=1_000)
    parser.add_argument("--lease", type=float, default=30.0, help="seconds")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds")
    trio.run(run, parser.parse_args())


if __name__ == "__main__":
    main()
