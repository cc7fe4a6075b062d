"""The stages of this folder's tests: a publisher, a subscriber or a link, and who is at the other end."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio
from redis.exceptions import ResponseError
from trio.testing import wait_all_tasks_blocked

from tests.backplane.redis.fake_server import Command, FakeNetwork, FakeServer, Peer, connect, push
from trioroom._core.meters import LinkMeters
from trioroom.backplane.base import Delivery
from trioroom.backplane.channel import Channel
from trioroom.backplane.redis import RedisSettings
from trioroom.backplane.redis import link as link_module
from trioroom.backplane.redis.link import Link
from trioroom.backplane.redis.location import Endpoint, parse_location
from trioroom.backplane.redis.publisher import Publisher
from trioroom.backplane.redis.resp import RedisConnection
from trioroom.backplane.redis.sources import FixedSource, Source
from trioroom.backplane.redis.subscriber import CLASSIC, Subscriber, Words
from trioroom.backplane.supervision import LinkLost
from trioroom.errors import BackplaneUnavailable

ENDPOINT = Endpoint("fake", 1)
LOST = "the link to the broker broke while a publication was on its way; it may have gone out or not"


@attrs.define(eq=False)
class Record:
    heard: list[Delivery] = attrs.field(factory=list)

    def offer(self, delivery: Delivery) -> None:
        self.heard.append(delivery)


class PublisherScene:
    """A publisher, whoever publishes, and the connection of the moment."""

    def __init__(self, publisher: Publisher, nursery: trio.Nursery) -> None:
        self.publisher, self.nursery = publisher, nursery
        self.results: dict[bytes, str] = {}
        self.scopes: dict[bytes, trio.CancelScope] = {}

    async def publish(self, *payloads: bytes) -> None:
        """Each by a task of its own, as far as it gets before the next one starts."""
        for payload in payloads:
            self.nursery.start_soon(self._publish, payload)
            await wait_all_tasks_blocked()

    async def _publish(self, payload: bytes) -> None:
        async def publish() -> str:
            await self.publisher.publish(b"name", payload)
            return "done"

        await self._record(payload, publish)

    async def call(self, word: bytes) -> None:
        """A command that names the incarnation, by a task of its own; its result is the reply."""

        async def call() -> str:
            return str(await self.publisher.call(lambda incarnation: (b"EVALSHA", incarnation, word)))

        self.nursery.start_soon(self._record, word, call)
        await wait_all_tasks_blocked()

    async def _record(self, name: bytes, ask: Callable[[], Awaitable[str]]) -> None:
        self.results[name] = "cancelled"
        with trio.CancelScope() as self.scopes[name]:
            try:
                self.results[name] = "pending"
                self.results[name] = await ask()
            except (ResponseError, BackplaneUnavailable) as exc:
                self.results[name] = str(exc)
        if self.scopes[name].cancelled_caught:
            self.results[name] = "cancelled"

    async def run(
        self,
        connection: RedisConnection,
        incarnation: bytes = b"",
        *,
        task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            with suppress(LinkLost):
                try:
                    await self.publisher.run(connection, incarnation)
                except* LinkLost as group:
                    raise group.exceptions[0] from None

    async def connect(self, incarnation: bytes = b"") -> Peer:
        connection, peer = connect()
        await self.nursery.start(self.run, connection, incarnation)
        await wait_all_tasks_blocked()
        return peer


def payloads(commands: list[Command]) -> list[bytes]:
    """Of nothing but publications."""
    assert all(command[:2] == [b"PUBLISH", b"name"] for command in commands)
    return [command[2] for command in commands]


@asynccontextmanager
async def open_publisher(
    count: int = 100, size: int = 10_000, timeout: float = math.inf
) -> AsyncIterator[PublisherScene]:
    async with trio.open_nursery() as nursery:
        yield PublisherScene(Publisher(b"PUBLISH", timeout, count, size, LinkMeters()), nursery)
        nursery.cancel_scope.cancel()


class SubscriberScene:
    def __init__(self, words: Words, nursery: trio.Nursery) -> None:
        self.words, self._nursery = words, nursery
        self.moved = 0
        self.subscriber = Subscriber(words, 100, self._on_moved)
        self.ends: list[str] = []
        """Why each connection was given up."""

    def _on_moved(self) -> None:
        self.moved += 1

    def add(self, name: bytes) -> tuple[Channel, Record]:
        channel, record = Channel(name), Record()
        channel.add(record)
        self.subscriber.add(channel)
        return channel, record

    async def connect(self) -> Peer:
        connection, peer = connect()

        async def run() -> None:
            try:
                await self.subscriber.run(connection)
            except* LinkLost as group:
                [lost] = group.exceptions
                self.ends.append(str(lost))

        self._nursery.start_soon(run)
        await wait_all_tasks_blocked()
        return peer

    def confirmed(self, *names: bytes) -> bytes:
        return b"".join([push(self.words.subscribe.lower(), name) for name in names])


@asynccontextmanager
async def open_subscriber(words: Words = CLASSIC) -> AsyncIterator[SubscriberScene]:
    async with trio.open_nursery() as nursery:
        yield SubscriberScene(words, nursery)
        nursery.cancel_scope.cancel()


async def say(peer: Peer, *replies: bytes) -> None:
    await peer.say(*replies)
    await wait_all_tasks_blocked()


class LinkScene:
    def __init__(self, nursery: trio.Nursery, source: Source, settings: RedisSettings) -> None:
        self.nursery = nursery
        self.network = FakeNetwork(nursery)
        self.changes: list[tuple[bool, str | None]] = []
        """What the link said of itself each time it called ``on_change``."""
        self.meters = LinkMeters()
        location = parse_location("redis://fake:1", settings)
        self.link = Link(location, CLASSIC, source, b"probe", self._on_change, self.meters)

    def _on_change(self) -> None:
        self.changes.append((self.link.ready, self.link.failure))

    @property
    def attempts(self) -> int:
        return len(self.network.opened)

    async def run(self, server: FakeServer | None = None) -> FakeServer:
        """Start the link, and have it up if there is a server."""
        server = server or self.network.add()
        self.nursery.start_soon(self.link.run)
        await wait_all_tasks_blocked()
        return server

    def room(self) -> Record:
        channel, record = Channel(b"room"), Record()
        channel.add(record)
        self.link.subscriber.add(channel)
        return record

    async def publish(self, payload: bytes, results: list[str]) -> None:
        try:
            await self.link.publisher.publish(b"room", payload)
            results.append("done")
        except BackplaneUnavailable as exc:
            results.append(str(exc))


@asynccontextmanager
async def open_link(
    patch: pytest.MonkeyPatch, source: Source | None = None, settings: RedisSettings | None = None
) -> AsyncIterator[LinkScene]:
    async with trio.open_nursery() as nursery:
        scene = LinkScene(nursery, source or FixedSource(ENDPOINT), settings or RedisSettings())
        patch.setattr(link_module, "open_connection", scene.network.open_connection)
        yield scene
        nursery.cancel_scope.cancel()


async def keep_talking(scene: LinkScene) -> None:
    """So that bytes come on both connections, until cancelled."""
    while True:
        await trio.sleep(0.1)
        scene.nursery.start_soon(scene.publish, b"x", [])
