"""What happens when a server with many clients stops, and another one takes its port: how fast, and who loses what.

    python -m tests.benchmarks.reconnect_wave [--clients 2000] [--processes 2] [--missed 20]

Clients of `trioroom.connect` are in one room with a history, which a Redis keeps. In the first round the server is
stopped by SIGTERM: it says when to come back. In the second one it is killed. A new one is started at once, and
messages are published when it listens. Prints a histogram of the seconds from the stop until each client has joined
again, how many recovered all, how often each had to wait, and whether connections were lost again: a second wave.
The server has core 0, the clients core 1.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection

import attrs
import trio

import trioroom
from tests.backplane.processes import free_port
from tests.backplane.redis.servers import binaries
from tests.benchmarks.processes import LOAD_CORE, SERVER_CORE, beside
from trioroom._wire.publication import encode_publication
from trioroom.client import Client, ClientRoom, Message, Rejoined

ROOM = "room/a"
JOINING_AT_ONCE = 50  # while the clients of a process connect for the first time
BUCKET = 0.5  # seconds of a bar
GIVE_UP = 90.0  # seconds until a round is judged as it is


class Kept(trioroom.Room):
    history = trioroom.History(size=1_000, ttl=600)


async def serve(port: int, url: str) -> None:
    """The server's side; SIGTERM drains it."""
    app = trioroom.App()
    app.route("room/{name}", Kept)
    settings = trioroom.Settings(max_message_rate=1e9, message_burst=1_000_000, drain_timeout=5.0)
    async with trioroom.open_backplane(url) as backplane:
        async with trioroom.open_server(app, port=port, settings=settings, backplane=backplane):
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                async for _ in signals:
                    return


@attrs.define
class Seen:
    """By one client, since the round began."""

    rejoined_at: float | None = None
    """The first time."""
    rejoins: int = 0
    recovered: bool = False
    failed_tries: int = 0
    messages: list[object] = attrs.field(factory=list)


# -- a process with clients -------------------------------------------------------------------------


async def follow_states(client: Client, seen: Seen) -> None:
    async for state in client.states():
        if state.name == "waiting":
            seen.failed_tries += 1


async def follow_room(room: ClientRoom, seen: Seen) -> None:
    async for event in room.events():
        if isinstance(event, Message):
            seen.messages.append(event.data)
        elif isinstance(event, Rejoined):
            seen.rejoined_at, seen.recovered = seen.rejoined_at or time.monotonic(), event.recovered
            seen.rejoins += 1


async def be_client(port: int, seen: Seen, limit: trio.Semaphore, joined: trio.MemorySendChannel[None]) -> None:
    async with trioroom.connect(f"ws://127.0.0.1:{port}/") as client, trio.open_nursery() as nursery:
        joining = client.join(ROOM)
        async with limit:
            room = await joining.__aenter__()  # left with the process
        nursery.start_soon(follow_states, client, seen)
        await joined.send(None)
        await follow_room(room, seen)


async def be_clients(pipe: Connection, port: int, count: int) -> None:
    """Say when all have joined; then answer each word with what they have seen so far, and begin anew on ``reset``."""
    everybody = [Seen() for _ in range(count)]
    limit = trio.Semaphore(JOINING_AT_ONCE)
    async with trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[None](0)
        for seen in everybody:
            nursery.start_soon(be_client, port, seen, limit, send)
        for _ in range(count):
            await receive.receive()
        pipe.send("joined")
        while (word := await trio.to_thread.run_sync(pipe.recv, abandon_on_cancel=True)) != "stop":
            if word == "reset":
                for seen in everybody:
                    seen.__init__()  # type: ignore[misc]  # the tasks hold it
            pipe.send(everybody)
        nursery.cancel_scope.cancel()


def run_clients(pipe: Connection, port: int, count: int) -> None:
    """A process of its own."""
    os.sched_setaffinity(0, {LOAD_CORE})
    trio.run(be_clients, pipe, port, count)


# -- the rounds -------------------------------------------------------------------------------------


@contextmanager
def broker() -> Iterator[str]:
    """Its URL."""
    binary, port = next(iter(binaries().values())), free_port()
    with tempfile.TemporaryDirectory() as directory:
        options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory)
        process = subprocess.Popen([str(binary), *options], stdout=subprocess.DEVNULL)
        try:
            wait_listening(port)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def wait_listening(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"nobody listens on port {port}")


def start_server(port: int, url: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.benchmarks.reconnect_wave", "serve", str(port), url]
    return subprocess.Popen(["taskset", "-c", str(SERVER_CORE), *command])


async def publish(url: str, count: int) -> None:
    """Past the servers, as `trioroom publish --backplane` does."""
    async with trioroom.open_backplane(url) as backplane:
        assert backplane.history is not None
        for number in range(count):
            await backplane.history.publish(ROOM, encode_publication(number), None)


def ask(pipes: list[Connection], word: str) -> list[Seen]:
    """All that all clients have seen."""
    for pipe in pipes:
        pipe.send(word)
    return [seen for pipe in pipes for seen in pipe.recv()]


def run_round(
    pipes: list[Connection], server: subprocess.Popen[bytes], port: int, url: str, how: signal.Signals, missed: int
) -> subprocess.Popen[bytes]:
    """Stop the server, start another one, report; the other one."""
    ask(pipes, "reset")
    stopped_at = time.monotonic()
    server.send_signal(how)
    server.wait()
    down_at = time.monotonic()
    server = start_server(port, url)
    wait_listening(port)
    up_at = time.monotonic()
    trio.run(publish, url, missed)
    while time.monotonic() < stopped_at + GIVE_UP:
        time.sleep(1)
        everybody = ask(pipes, "tell")
        if all(seen.rejoined_at is not None and len(seen.messages) >= missed for seen in everybody):
            break
    print(f"\n{how.name}: gone after {down_at - stopped_at:.2f} s, another one listened at {up_at - stopped_at:.2f} s")
    report(everybody, stopped_at, missed)
    return server


def report(everybody: list[Seen], stopped_at: float, missed: int) -> None:
    """Who came back when, and with what."""
    times = sorted(seen.rejoined_at - stopped_at for seen in everybody if seen.rejoined_at is not None)
    bars = Counter(int(seconds / BUCKET) for seconds in times)
    for bar in range(max(bars, default=0) + 1):
        print(f"{bar * BUCKET:5.1f} s {bars[bar]:6d} {'#' * round(60 * bars[bar] / max(bars.values()))}")
    complete = sum(seen.messages == list(range(missed)) for seen in everybody)
    recovered = sum(seen.recovered for seen in everybody)
    again = sum(seen.rejoins > 1 for seen in everybody)
    print(
        f"{len(times)} of {len(everybody)} came back; half by {times[len(times) // 2]:.2f} s, all by {times[-1]:.2f} s"
    )
    print(f"{recovered} recovered, {complete} have each of {missed} messages once and in order")
    print(f"{again} came back more than once, which would be a second wave")
    tries = Counter(seen.failed_tries for seen in everybody)
    print("waits until a connection lasted (waits: clients):", dict(sorted(tries.items())))


def main() -> None:
    """Run it as the command line says."""
    if sys.argv[1:2] == ["serve"]:
        return trio.run(serve, int(sys.argv[2]), sys.argv[3])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=2_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--missed", type=int, default=20)
    options = parser.parse_args()
    port, each = free_port(), options.clients // options.processes
    with broker() as url, ExitStack() as stack:
        server = start_server(port, url)
        wait_listening(port)
        try:
            pipes = [stack.enter_context(beside(run_clients, port, each)) for _ in range(options.processes)]
            for pipe in pipes:
                assert pipe.recv() == "joined"
            print(f"{each * options.processes} clients in {options.processes} processes have joined", flush=True)
            for how in (signal.SIGTERM, signal.SIGKILL):
                server = run_round(pipes, server, port, url, how, options.missed)
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
