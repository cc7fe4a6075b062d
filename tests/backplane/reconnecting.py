"""Members who come and go, while two nodes publish and their broker dies: does each know what it has missed?"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol

import attrs
import trio

import trioroom
from tests.backplane.processes import until
from trioroom.backplane.base import Backplane
from trioroom.errors import BackplaneUnavailable, ConnectionClosed
from trioroom.server import Server
from trioroom.testing import open_v1_peer
from trioroom.testing.v1_peer import Envelope, V1Peer

ROOM = "room/a"
GAP = None
"""In a member's sequence: it was told that something is missing here."""

Publication = tuple[int, int]
"""The publisher, and which of its publications, counted from 0."""


class Kept(trioroom.Room):
    history = trioroom.History(size=4_096, ttl=600)


def lacks(sequence: Sequence[Publication | None], published: Sequence[int], end: bool = True) -> list[str]:
    """What is wrong with a member's sequence, when each publisher got so many out. It may begin anywhere.

    Args:
        end: it goes on until the last publication.
    """
    faults: list[str] = []
    for publisher, count in enumerate(published):
        last: int | None = None
        told = False  # since the last of this publisher
        for item in sequence:
            if item is GAP:
                told = True
            elif item[0] == publisher:
                number = item[1]
                if last is not None and number <= last:
                    faults.append(f"{item} after {last}: twice, or out of order")
                elif last is not None and number != last + 1 and not told:
                    faults.append(f"{item} after {last}: lost in silence")
                last, told = number, False
        if end and last != count - 1 and not told:
            faults.append(f"publisher {publisher} ends with {last} and not {count - 1}")
    return faults


@attrs.define(eq=False)
class Client:
    """Somebody who remembers a position over all connections."""

    sequence: list[Publication | None] = attrs.field(factory=list)
    position: dict[str, object] | None = None
    joins: int = 0
    recovered: int = 0
    live: bool = False
    tcp: bool = True

    async def stay(self, server: Server, seconds: float) -> None:
        """Connect, join and listen; then drop the connection without a word."""
        with trio.move_on_after(seconds):
            try:
                async with open_v1_peer(server, tcp=self.tcp) as peer:
                    await self._join(peer)
                    self.live = True
                    while True:
                        self.take(await peer.receive())
            except (ConnectionClosed, OSError, trio.BrokenResourceError):
                pass
        self.live = False

    async def _join(self, peer: V1Peer) -> None:
        while (answer := await peer.request("join", room=ROOM, position=self.position))["type"] == "error":
            assert answer["code"] == "unavailable", answer
            await trio.sleep(0.1)
        self.joins += 1
        if self.position is not None:
            if answer["recovered"]:
                self.recovered += 1
            else:
                self.sequence.append(GAP)
        self.position = answer["position"]

    def take(self, envelope: Envelope) -> None:
        """What the server pushed."""
        assert self.position is not None
        if envelope["type"] == "gap":
            self.sequence.append(GAP)
            self.position = envelope["position"]
        elif envelope["type"] == "position":
            self.position = envelope["position"]
        else:
            assert envelope["type"] == "message", envelope
            self.position = {**self.position, "offset": envelope["offset"]}
            publisher, number = envelope["data"]
            self.sequence.append((publisher, number))


class Stage:
    """Two nodes on one broker; made by `open_stage`."""

    def __init__(self, apps: Sequence[trioroom.App], servers: Sequence[Server], seed: int) -> None:
        self.apps, self.servers = apps, servers
        self.clients: list[Client] = []
        self.published = [0 for _ in apps]
        self.retries = 0
        self.random = random.Random(seed)
        self._ending = False

    async def publish(self, node: int, interval: float) -> None:
        """Until `end`: numbers in turn, each until the broker has confirmed it."""
        while not self._ending:
            number = self.published[node]
            try:
                await self.apps[node].publish(ROOM, [node, number], publication_id=f"{node}-{number}")
            except BackplaneUnavailable:
                self.retries += 1
                await trio.sleep(0.05)
            else:
                self.published[node] += 1
                await trio.sleep(interval)

    async def come_and_go(self, client: Client) -> None:
        """Until `end`, with one of the nodes, for a while; then it stays."""
        while not self._ending:
            await client.stay(self.random.choice(self.servers), self.random.uniform(0.05, 2.0))
            await trio.sleep(self.random.uniform(0, 0.5))
        await client.stay(self.random.choice(self.servers), 3600)

    async def settle(self, timeout: float) -> None:
        """No more publications, no more reconnecting, and everybody hears the last ones, unless it takes too long."""
        self._ending = True

        async def all_have_all() -> bool:
            return all(client.live and not lacks(client.sequence, self.published) for client in self.clients)

        with suppress(TimeoutError):
            await until(all_have_all, "everybody has everything", timeout)

    def faults(self) -> list[str]:
        """Of all members."""
        return [
            f"member {number}: {fault}"
            for number, client in enumerate(self.clients)
            for fault in lacks(client.sequence, self.published)
        ]


def check(stage: Stage, most_gaps: int, least_published: int = 50) -> None:
    """Nobody lost anything in silence, and the history held what they missed, but for so many gaps."""
    assert stage.faults() == []
    assert min(stage.published) > least_published
    assert all(client.recovered for client in stage.clients), "nobody ever had to recover"
    assert max(client.sequence.count(GAP) for client in stage.clients) <= most_gaps


class Forgetful(Protocol):
    """A server that tests kill."""

    def forget(self) -> None: ...

    async def restart(self) -> None: ...


async def outlive_restarts(stage: Stage, server: Forgetful) -> None:
    """One with the server's data, one without."""
    await trio.sleep(1.0)
    await server.restart()
    await trio.sleep(2.0)
    server.forget()
    await server.restart()
    await trio.sleep(1.0)
    await stage.settle(20.0)
    check(stage, most_gaps=2)


@asynccontextmanager
async def open_stage(
    open_node: Callable[[], AbstractAsyncContextManager[Backplane]], members: int, interval: float, seed: int
) -> AsyncIterator[Stage]:
    """``members`` come and go while each node publishes every ``interval`` seconds, until the stage has settled."""
    apps = [trioroom.App(), trioroom.App()]
    settings = trioroom.Settings(close_timeout=1.0, leave_timeout=1.0, drain_timeout=1.0)
    for app in apps:
        app.route("room/{name}", Kept)
    async with (
        open_node() as here,
        open_node() as there,
        trioroom.open_server(apps[0], port=0, settings=settings, backplane=here) as first,
        trioroom.open_server(apps[1], port=0, settings=settings, backplane=there) as second,
        trio.open_nursery() as nursery,
    ):
        stage = Stage(apps, [first, second], seed)
        stage.clients += [Client() for _ in range(members)]
        for client in stage.clients:
            nursery.start_soon(stage.come_and_go, client)
        for node in range(2):
            nursery.start_soon(stage.publish, node, interval)
        yield stage
        nursery.cancel_scope.cancel()
