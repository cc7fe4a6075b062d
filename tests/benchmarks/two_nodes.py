"""Two nodes of a backplane in one process: what is published on one is heard on the other, or said to be lost."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio

from tests.benchmarks.redis_clients import PublicationsLost, Publish, Received
from trioroom._core.history import History, Kept
from trioroom.backplane.base import Backplane, Lost
from trioroom.backplane.open import open_backplane
from trioroom.backplane.room_channel import RoomChannel
from trioroom.testing.conformance import subscribed
from trioroom.testing.histories import history_of, listening

CAPACITY = 65_536  # of the subscriber's channel: what the benchmarks are about is the way to it
KEPT = History(1_000)


@asynccontextmanager
async def open_pair(url: str) -> AsyncIterator[tuple[Backplane, Backplane]]:
    """One that publishes and one that hears; in memory both are one."""
    async with open_backplane(url) as here:
        if url == "memory":
            yield here, here
            return
        async with open_backplane(url) as there:
            yield here, there


@asynccontextmanager
async def without_history(url: str, received: Received) -> AsyncIterator[Publish]:
    """A room that keeps nothing."""
    room = _new_room()
    async with open_pair(url) as (here, there), subscribed(there, room, CAPACITY) as subscription:
        async with heard(subscription, received):
            yield partial(here.publish, room)


@asynccontextmanager
async def with_ids(url: str, received: Received) -> AsyncIterator[Publish]:
    """The same, and none goes out twice."""
    room, session, numbers = _new_room(), secrets.token_hex(8), itertools.count()
    async with open_pair(url) as (here, there), subscribed(there, room, CAPACITY) as subscription:

        async def publish(payload: bytes) -> None:
            await here.publish(room, payload, f"{session}/{next(numbers)}")

        async with heard(subscription, received):
            yield publish


@asynccontextmanager
async def with_history(url: str, received: Received) -> AsyncIterator[Publish]:
    """A room whose latest 1,000 publications are kept."""
    room = _new_room()
    async with open_pair(url) as (here, there):
        store = history_of(here)

        async def publish(payload: bytes) -> None:
            await store.publish(room, payload, KEPT)

        async with listening(history_of(there), room, max_publications=CAPACITY) as subscription:
            async with heard(subscription, received):
                yield publish


@asynccontextmanager
async def heard(subscription: RoomChannel, received: Received) -> AsyncIterator[None]:
    """Give what comes to ``received`` while the context is open.

    Raises:
        PublicationsLost: a `Lost` has come.
    """

    async def listen() -> None:
        while True:
            batch = [await subscription.receive()]  # and then all that waits, as a room's pump does
            with suppress(trio.WouldBlock):
                while True:
                    batch.append(subscription.receive_nowait())
            payloads = []
            for delivery in batch:
                if isinstance(delivery, Lost):
                    raise PublicationsLost(f"the subscriber was told {delivery}")
                payloads.append(delivery.payload if isinstance(delivery, Kept) else delivery)
            received(payloads)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        yield
        nursery.cancel_scope.cancel()


def _new_room() -> str:
    """Nobody has used it before, so that no measurement finds what an earlier one has left."""
    return f"bench/{secrets.token_hex(8)}"
