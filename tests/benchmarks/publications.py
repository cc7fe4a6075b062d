"""Publications that go through a broker, counted when they are heard: how many in a second, and how soon each."""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import trio

PAYLOAD_BYTES = 128
WARM_UP, SECONDS = 0.2, 1.0  # of each measurement of a rate
LATENCY_RATE, LATENCY_SECONDS = 200, 3
STRAGGLERS = 10.0  # seconds for what has been confirmed to be heard; a subscriber may be slower than its publishers
TWICE = 0.1  # seconds for what comes more than once

Received = Callable[[Sequence[bytes]], None]
Publish = Callable[[bytes], Awaitable[None]]
Opening = Callable[[Received], AbstractAsyncContextManager[Publish]]


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
        await trio.sleep(TWICE)
        if self.count != confirmed:
            raise PublicationsLost(f"{confirmed:,} publications were confirmed and {self.count:,} heard")


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
