"""Ways to reach Kafka from Trio: publications per second, and how long one of them takes.

    python -m tests.benchmarks.kafka_clients [--rounds 3]

128 bytes go through a broker of the script's own (noida, see `tests.backplane.kafka.servers`) to a reader in the same
process, and count when they are received there. A publisher waits for the broker's answer before its next publication.
`aiokafka` is measured where it is installed, on asyncio, where it lives. Contenders take turns, and each figure is the
median of its rounds, with the lowest and the highest beside it. Decision 0019 quotes the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import confluent_kafka
import confluent_kafka.aio
import trio
import trio.lowlevel
from confluent_kafka.admin import AdminClient, NewTopic

from tests.backplane.kafka.servers import open_noida
from trioroom.backplane.kafka import open_kafka
from trioroom.testing.conformance import subscribed

PAYLOAD = b"x" * 128
PUBLISHERS = (1, 64)
WARM_UP, SECONDS = 0.3, 1.0
LATENCIES, PAUSE = 100, 0.005
LINGER_MS = 0
READER = {"group.id": "bench", "enable.auto.commit": False}
WRITER = {"enable.idempotence": True, "linger.ms": LINGER_MS, "log_level": 0}

Received = Callable[[int], None]
Publish = Callable[[], Awaitable[None]]


# -- ways on Trio ------------------------------------------------------------------------------------


@asynccontextmanager
async def trioroom_link(bootstrap: str, received: Received) -> AsyncIterator[Publish]:
    """What the backplane does: two threads, groups of records cross to Trio."""
    url = f"kafka://{bootstrap}?prefix=link{time.monotonic_ns()}"
    async with open_kafka(url) as node, subscribed(node, "room", 65_536) as deliveries, trio.open_nursery() as nursery:

        async def listen() -> None:
            while True:
                await deliveries.receive()
                received(1)

        nursery.start_soon(listen)
        yield partial(node.publish, "room", PAYLOAD)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def call_per_thread(bootstrap: str, received: Received) -> AsyncIterator[Publish]:
    """The obvious version: each publication is a worker thread that waits for its own answer."""
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, **WRITER})
    topic = new_topic(bootstrap)

    def publish() -> None:
        producer.produce(topic, PAYLOAD, partition=0)
        producer.flush()

    ended = False

    def read() -> None:
        consumer = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, **READER})
        consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
        while not ended:
            if (message := consumer.poll(0.1)) is not None and message.error() is None:
                trio.from_thread.run_sync(received, 1)
        consumer.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, read)
        limiter = trio.CapacityLimiter(64)
        yield partial(trio.to_thread.run_sync, publish, limiter=limiter)
        ended = True


# -- ways on asyncio, which a thread with a loop of its own would have to bridge -------------------------


@asynccontextmanager
async def confluent_aio(bootstrap: str, received: Received) -> AsyncIterator[Publish]:
    """confluent_kafka.aio: a pool of threads below an event loop."""
    topic = new_topic(bootstrap)
    producer: Any = confluent_kafka.aio.AIOProducer({"bootstrap.servers": bootstrap, **WRITER}, buffer_timeout=0.001)
    consumer: Any = confluent_kafka.aio.AIOConsumer({"bootstrap.servers": bootstrap, **READER})
    await consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])

    async def listen() -> None:
        while True:
            message = await consumer.poll(0.1)
            if message is not None and message.error() is None:
                received(1)

    async def publish() -> None:
        await (await producer.produce(topic, PAYLOAD))

    listening = asyncio.create_task(listen())
    yield publish
    listening.cancel()
    await producer.close()
    await consumer.close()


@asynccontextmanager
async def aiokafka_client(bootstrap: str, received: Received) -> AsyncIterator[Publish]:
    """aiokafka: the protocol in Python, on asyncio only."""
    import aiokafka

    topic = new_topic(bootstrap)
    producer: Any = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    consumer: Any = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await producer.start()
    await consumer.start()
    consumer.assign([aiokafka.TopicPartition(topic, 0)])

    async def listen() -> None:
        while True:
            batches = await consumer.getmany(timeout_ms=100)
            received(sum(map(len, batches.values())))

    listening = asyncio.create_task(listen())
    yield partial(producer.send_and_wait, topic, PAYLOAD, partition=0)
    listening.cancel()
    await producer.stop()
    await consumer.stop()


def new_topic(bootstrap: str) -> str:
    """Of one partition."""
    name = f"bench{time.monotonic_ns()}"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    [made] = admin.create_topics([NewTopic(name, 1, 1)]).values()
    made.result(10)
    return name


# -- measuring ---------------------------------------------------------------------------------------

OpenWay = Callable[[str, Received], AbstractAsyncContextManager[Publish]]


class Count:
    """How many were received."""

    def __init__(self) -> None:
        self.received = 0
        self.told: Callable[[], None] | None = None

    def __call__(self, count: int) -> None:
        self.received += count
        if count and self.told is not None:
            self.told()


async def measure_trio(way: OpenWay, bootstrap: str, publishers: int) -> tuple[float, list[float]]:
    """Publications received per second; latencies with one publisher."""
    count = Count()
    async with way(bootstrap, count) as publish, trio.open_nursery() as nursery:
        await publish()

        async def publish_on() -> None:
            while True:
                await publish()

        latencies: list[float] = []
        if publishers == 1:
            await trio.sleep(WARM_UP)
            for _ in range(LATENCIES):
                heard, began = trio.Event(), time.perf_counter()
                count.told = heard.set
                await publish()
                await heard.wait()
                latencies.append(time.perf_counter() - began)
                await trio.sleep(PAUSE)
        for _ in range(publishers):
            nursery.start_soon(publish_on)
        await trio.sleep(WARM_UP)
        before, began = count.received, time.perf_counter()
        await trio.sleep(SECONDS)
        rate = (count.received - before) / (time.perf_counter() - began)
        nursery.cancel_scope.cancel()
    return rate, latencies


async def measure_asyncio(way: OpenWay, bootstrap: str, publishers: int) -> tuple[float, list[float]]:
    """As `measure_trio`."""
    count = Count()
    async with way(bootstrap, count) as publish:
        await publish()

        async def publish_on() -> None:
            while True:
                await publish()

        latencies: list[float] = []
        if publishers == 1:
            await asyncio.sleep(WARM_UP)  # of asyncio, this time
            for _ in range(LATENCIES):
                heard, began = asyncio.Event(), time.perf_counter()
                count.told = heard.set
                await publish()
                await heard.wait()
                latencies.append(time.perf_counter() - began)
                await asyncio.sleep(PAUSE)
        tasks = [asyncio.create_task(publish_on()) for _ in range(publishers)]
        await asyncio.sleep(WARM_UP)
        before, began = count.received, time.perf_counter()
        await asyncio.sleep(SECONDS)
        rate = (count.received - before) / (time.perf_counter() - began)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return rate, latencies


def ways() -> dict[str, Callable[[str, int], tuple[float, list[float]]]]:
    """By name: what measures it."""

    def on_trio(way: OpenWay, bootstrap: str, publishers: int) -> tuple[float, list[float]]:
        return trio.run(measure_trio, way, bootstrap, publishers)

    def on_asyncio(way: OpenWay, bootstrap: str, publishers: int) -> tuple[float, list[float]]:
        return asyncio.run(measure_asyncio(way, bootstrap, publishers))

    found: dict[str, Callable[[str, int], tuple[float, list[float]]]] = {
        "two threads, groups cross to Trio": partial(on_trio, trioroom_link),
        "a worker thread for each call": partial(on_trio, call_per_thread),
        "confluent_kafka.aio on asyncio": partial(on_asyncio, confluent_aio),
    }
    if find_spec("aiokafka"):
        found["aiokafka on asyncio"] = partial(on_asyncio, aiokafka_client)
    return found


def shown(values: list[float], digits: int = 0) -> str:
    """The median, with the lowest and the highest."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


async def main(rounds: int) -> None:
    """Print a line for each way."""
    print(f"Python {platform.python_version()}, trio {version('trio')}, confluent-kafka {version('confluent-kafka')}")
    rates: dict[tuple[str, int], list[float]] = {}
    p50s: dict[str, list[float]] = {}
    p99s: dict[str, list[float]] = {}
    async with open_noida() as server:
        for _ in range(rounds):
            for name, measure in ways().items():
                for publishers in PUBLISHERS:
                    rate, waited = await trio.to_thread.run_sync(measure, server.bootstrap, publishers)
                    rates.setdefault((name, publishers), []).append(rate)
                    if waited:
                        quantiles = statistics.quantiles(waited, n=100)
                        p50s.setdefault(name, []).append(quantiles[49] * 1_000)
                        p99s.setdefault(name, []).append(quantiles[98] * 1_000)
    for name in ways():
        figures = [shown(rates[name, publishers]) for publishers in PUBLISHERS]
        print(f"| {name} | {' | '.join(figures)} | {shown(p50s[name], 2)} | {shown(p99s[name], 2)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    trio.run(main, parser.parse_args().rounds)
