"""A connection in memory, and whoever asks or listens over it; what the server says is up to the test."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from trioroom.backplane.base import Delivery
from trioroom.backplane.nats.channel import NatsChannel
from trioroom.backplane.nats.connection import NatsConnection, ServerInfo
from trioroom.backplane.nats.protocol import Message
from trioroom.backplane.nats.requests import Requests
from trioroom.backplane.nats.subscriber import Subscriber
from trioroom.backplane.supervision import LinkLost
from trioroom.backplane.url import Endpoint
from trioroom.errors import BackplaneError

ENDPOINT = Endpoint("fake", 1)


class Peer:
    """The server's end: reads what comes as lines, payloads among them, and says what it is told to."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def read(self) -> list[bytes]:
        """The lines that have come."""
        data = b""
        while not data.endswith(b"\r\n"):
            data += await self.stream.receive_some()
        return data.removesuffix(b"\r\n").split(b"\r\n")

    async def published(self) -> dict[bytes, bytes]:
        """The inboxes that wait for answers, by what was asked."""
        lines = await self.read()
        return {
            payload: line.split()[2]
            for line, payload in zip(lines[::2], lines[1::2], strict=True)
            if line.startswith(b"PUB ")
        }


def connect(max_payload: int = 1_000) -> tuple[NatsConnection, Peer]:
    """Both ends; nothing has been said."""
    ours, theirs = trio.testing.memory_stream_pair()
    return NatsConnection(ours, ENDPOINT, ServerInfo(max_payload=max_payload)), Peer(theirs)


def answer(inbox: bytes, payload: bytes = b"ok", head: bytes = b"") -> Message:
    """To what was asked."""
    return Message(inbox, 1, None, head, payload)


NOBODY = b"NATS/1.0 503\r\n\r\n"


class RequestsScene:
    """Who asks, and the connection of the moment."""

    def __init__(self, requests: Requests, nursery: trio.Nursery) -> None:
        self.requests, self.nursery = requests, nursery
        self.results: dict[bytes, str] = {}
        self.scopes: dict[bytes, trio.CancelScope] = {}

    async def ask(self, *payloads: bytes) -> None:
        """Each by a task of its own, as far as it gets before the next one starts."""
        for payload in payloads:
            self.nursery.start_soon(self._ask, payload)
            await wait_all_tasks_blocked()

    async def _ask(self, payload: bytes) -> None:
        self.results[payload] = "cancelled"
        with trio.CancelScope() as self.scopes[payload]:
            try:
                self.results[payload] = "pending"
                self.results[payload] = (await self.requests.ask("s", payload)).payload.decode()
            except BackplaneError as exc:
                self.results[payload] = str(exc)
        if self.scopes[payload].cancelled_caught:
            self.results[payload] = "cancelled"

    async def connect(self, max_payload: int = 1_000) -> Peer:
        """Over a new connection."""
        connection, peer = connect(max_payload)

        async def run() -> None:
            with suppress(LinkLost):
                await self.requests.run(connection)

        self.nursery.start_soon(run)
        return peer


@asynccontextmanager
async def open_requests(
    count: int = 100, size: int = 10_000, timeout: float = math.inf
) -> AsyncIterator[RequestsScene]:
    async with trio.open_nursery() as nursery:
        yield RequestsScene(Requests(1, timeout, count, size), nursery)
        nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class Record:
    heard: list[Delivery] = attrs.field(factory=list)

    def offer(self, delivery: Delivery) -> None:
        self.heard.append(delivery)


class SubscriberScene:
    """Who listens; a batch is confirmed when the test says so."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.subscriber = Subscriber(max_payload=100)
        self.ends: list[str] = []
        self._nursery = nursery
        self._confirmed, self._confirming = trio.open_memory_channel[int](100)

    def add(self, name: bytes) -> tuple[NatsChannel, Record]:
        channel, record = NatsChannel(name), Record()
        channel.add(record)
        self.subscriber.add(channel)
        return channel, record

    async def connect(self) -> Peer:
        connection, peer = connect()

        async def run() -> None:
            try:
                await self.subscriber.run(connection, lambda _: self._confirming.receive())
            except LinkLost as exc:
                self.ends.append(str(exc))

        self._nursery.start_soon(run)
        await wait_all_tasks_blocked()
        return peer

    async def confirm(self, number: int = 1) -> None:
        """The oldest batch."""
        self._confirmed.send_nowait(number)
        await wait_all_tasks_blocked()

    def say(self, sid: int, payload: bytes) -> None:
        self.subscriber.take(Message(b"any", sid, None, b"", payload))


@asynccontextmanager
async def open_subscriber() -> AsyncIterator[SubscriberScene]:
    async with trio.open_nursery() as nursery:
        yield SubscriberScene(nursery)
        nursery.cancel_scope.cancel()
