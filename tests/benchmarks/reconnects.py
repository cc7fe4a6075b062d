"""Members who reconnect at random while two nodes publish and their broker dies twice: is anything lost in silence?

    python -m tests.benchmarks.reconnects [--seconds 60] [--members 100] [--interval 0.01] [--seed 1] [--server nats]

The broker keeps its data on disk; a third of the time in it is killed and restarted with its data, after another
third without. Prints what each member got against what was published; ends with 1 when something is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import trio

from tests.backplane.nats.servers import NatsServer, open_nats_server
from tests.backplane.reconnecting import GAP, Stage, open_stage
from tests.backplane.redis.servers import RedisServer, binaries, open_redis_server
from trioroom.backplane.base import Backplane
from trioroom.backplane.nats import NatsSettings, open_nats
from trioroom.backplane.redis import RedisSettings, open_redis


@asynccontextmanager
async def open_server(name: str) -> AsyncIterator[RedisServer | NatsServer]:
    """The broker of that name."""
    if name == "nats":
        async with open_nats_server() as nats_server:
            yield nats_server
    else:
        async with open_redis_server(binaries()[name], "--appendonly", "yes") as redis_server:
            yield redis_server


def open_node(url: str) -> AbstractAsyncContextManager[Backplane]:
    """A link to it."""
    if url.startswith("nats"):
        return open_nats(url, settings=NatsSettings(timeout=2.0, max_backoff=0.2, max_history_size=4_096))
    return open_redis(url, settings=RedisSettings(timeout=2.0, max_backoff=0.2))


async def kill_twice(server: RedisServer | NatsServer, seconds: float) -> None:
    """With and without its data."""
    await trio.sleep(seconds / 3)
    await server.restart()
    print("the broker was killed and is back with its data", flush=True)
    await trio.sleep(seconds / 3)
    server.forget()
    await server.restart()
    print("the broker was killed and is back without its data", flush=True)
    await trio.sleep(seconds / 3)


def report(stage: Stage) -> int:
    """Print what happened; how many faults there are."""
    clients, faults = stage.clients, stage.faults()
    received = sum(item is not GAP for client in clients for item in client.sequence)
    gaps = [client.sequence.count(GAP) for client in clients]
    print(
        f"{sum(stage.published)} publications, {stage.retries} of them retried, {received} received by {len(clients)}"
    )
    print(f"{sum(client.joins for client in clients)} joins, {sum(client.recovered for client in clients)} recovered")
    print(f"gaps for each member: {min(gaps)} to {max(gaps)}, {sum(gaps)} in all")
    print(f"{len(faults)} faults", *faults[:20], sep="\n  ")
    return len(faults)


async def main() -> int:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--interval", type=float, default=0.01, help="seconds between two publications of a node")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--server", choices=[*binaries(), "nats"], default=next(iter(binaries())))
    options = parser.parse_args()
    async with (
        open_server(options.server) as server,
        open_stage(partial(open_node, server.url), options.members, options.interval, options.seed) as stage,
    ):
        await kill_twice(server, options.seconds)
        await stage.settle(30.0)
        return report(stage)


if __name__ == "__main__":
    sys.exit(1 if trio.run(main) else 0)
