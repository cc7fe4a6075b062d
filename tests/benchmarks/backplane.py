"""The Redis backplane beside redis-py: publications per second, latency, and how long 100,000 rooms take to come back.

    python -m tests.benchmarks.backplane [--rounds 5] [--server PATH]

Two nodes in one process: one publishes to a room, the other one hears it, through a server of the script's own.
The bars are a bare redis-py pipeline of 64 (with a subscriber in a second thread, and alone, where nobody
listens and replies count), and the obvious version: redis-py in a thread, one PUBLISH awaited each.
Rooms with a history keep their last 1,000 publications; with ids each publication has one, and nothing is kept.
Contenders take turns; each figure is the median of its rounds, with the lowest and the highest.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial

import trio

from tests.benchmarks.redis_clients import (
    Publish,
    Received,
    awaited,
    connect,
    latencies,
    parse_arguments,
    pipeline_rate,
    publication_rate,
    server_at,
    take_turns,
    versions,
)
from tests.benchmarks.two_nodes import with_history, with_ids, without_history
from trioroom.backplane.base import Lost
from trioroom.backplane.redis import open_redis
from trioroom.backplane.room_channel import RoomChannel
from trioroom.testing.conformance import subscribed

OpenNodes = Callable[[str, Received], AbstractAsyncContextManager[Publish]]

ROOMS = 100_000
RATE = 1_000  # publications per second, of which the latency is told


def url_at(port: int) -> str:
    """Of the script's own server."""
    return f"redis://127.0.0.1:{port}"


def rate_of(open_nodes: OpenNodes, port: int, publishers: int) -> dict[str, float]:
    """Publications in a second."""
    return {"per second": trio.run(publication_rate, partial(open_nodes, url_at(port)), publishers)}


async def latency(port: int) -> dict[str, float]:
    """At a steady rate, and with nothing else to do."""
    waited = statistics.quantiles(await latencies(partial(without_history, url_at(port)), RATE), n=100)
    return {f"p50 ms at {RATE}/s": waited[49], f"p99 ms at {RATE}/s": waited[98]}


async def restoring(port: int) -> dict[str, float]:
    """Seconds from losing the connection until all rooms have been told their gap."""
    async with open_redis(url_at(port)) as node, AsyncExitStack() as rooms:
        subscriptions: list[RoomChannel] = []

        async def subscribe(number: int) -> None:
            subscriptions.append(await rooms.enter_async_context(subscribed(node, f"room/{number}", 16)))

        started = time.perf_counter()
        for start in range(0, ROOMS, 1_000):
            async with trio.open_nursery() as nursery:
                for number in range(start, start + 1_000):
                    nursery.start_soon(subscribe, number)
        complete = time.perf_counter()
        with connect(port) as client:
            await trio.to_thread.run_sync(client.execute_command, "CLIENT KILL TYPE pubsub")
        killed = time.perf_counter()
        for subscription in subscriptions:
            assert await subscription.receive() == Lost("backplane")
        restored = time.perf_counter()
    return {f"s to subscribe {ROOMS:,} rooms": complete - started, f"s to restore {ROOMS:,}": restored - killed}


CONTENDERS: dict[str, Callable[[int], dict[str, float]]] = {
    "pipeline": lambda port: {"per second": pipeline_rate(port, subscribe=True)},
    "pipeline-alone": lambda port: {"per second": pipeline_rate(port, subscribe=False)},
    "awaited, 1": lambda port: {"per second": trio.run(publication_rate, partial(awaited, port), 1)},
    "awaited, 64": lambda port: {"per second": trio.run(publication_rate, partial(awaited, port), 64)},
    "trioroom, 1": lambda port: rate_of(without_history, port, 1),
    "trioroom, 64": lambda port: rate_of(without_history, port, 64),
    "trioroom, ids, 64": lambda port: rate_of(with_ids, port, 64),
    "trioroom, history, 1": lambda port: rate_of(with_history, port, 1),
    "trioroom, history, 64": lambda port: rate_of(with_history, port, 64),
    "latency": lambda port: trio.run(latency, port),
    "restoring": lambda port: trio.run(restoring, port),
}


def main() -> None:
    """Let the contenders take their turns and print the medians."""
    arguments = parse_arguments(__doc__, list(CONTENDERS))
    with server_at(arguments.server) as port:
        print(f"{versions(port)}; medians of {arguments.rounds} rounds (lowest to highest)")
        figures = take_turns(arguments.contenders, arguments.rounds, lambda name: CONTENDERS[name](port))
    for (name, figure), values in figures.items():
        value = statistics.median(values)
        print(f"{name:22} {figure:28} {value:12,.3f}  ({min(values):,.3f} to {max(values):,.3f})")
    bars = {name: statistics.median(values) for (name, figure), values in figures.items() if figure == "per second"}
    for ours in (name for name in bars if name.startswith("trioroom")):
        ratios = (f"{bars[ours] / bars[bar]:.2f} times {bar}" for bar in bars if not bar.startswith("trioroom"))
        print(f"{ours} is {'; '.join(ratios)}")


if __name__ == "__main__":
    main()
