"""A cluster whose servers and whose map are what a test says, and who follows it; by a fake clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from redis.crc import key_slot
from redis.exceptions import ResponseError
from trio.testing import wait_all_tasks_blocked

from tests.backplane.redis.fake_server import Command, FakeNetwork, FakeServer, array, bulk, integer, push
from tests.backplane.redis.scenes import Record
from trioroom.backplane.channel import Channel
from trioroom.backplane.redis import cluster as cluster_module
from trioroom.backplane.redis import link as link_module
from trioroom.backplane.redis.cluster import Cluster
from trioroom.backplane.redis.location import parse_location
from trioroom.errors import BackplaneUnavailable

ROOM = b"room"
SLOT = key_slot(ROOM)
LAST = 16_383
Slots = dict[range, int]
"""Ports of the masters."""
ONE: Slots = {range(LAST + 1): 1}
LOW_HIGH: Slots = {range(8_000): 1, range(8_000, LAST + 1): 2}
HIGH_LOW: Slots = {range(8_000): 2, range(8_000, LAST + 1): 1}
WITHOUT_ROOM: Slots = {range(SLOT): 1, range(SLOT + 1, LAST + 1): 2}
ALMOST_ALL_AT_TWO: Slots = {range(1): 1, range(1, LAST + 1): 2}


class Scene:
    """A cluster whose map is what the test says; a node refuses what is in another one's slots."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.network = FakeNetwork(nursery)
        self.slots: Slots = ONE
        self.state = b"ok"
        self.cluster = Cluster(parse_location("redis+cluster://fake:1,fake:2"), b"probe")
        for port in (1, 2):
            self.network.add(port).answers[b"CLUSTER"] = self._answer

    def _answer(self, command: Command) -> bytes:
        if command[1] == b"INFO":
            return bulk(b"cluster_enabled:1\r\ncluster_state:%s\r\n" % self.state)
        entries = [
            array(integer(each.start), integer(each.stop - 1), array(bulk(b"fake"), integer(port), bulk(b"id")))
            for each, port in self.slots.items()
        ]
        return array(*entries)

    async def run(self) -> None:
        self.nursery.start_soon(self.cluster.run)
        await wait_all_tasks_blocked()

    def room(self, name: bytes = ROOM) -> tuple[Channel, Record]:
        channel, record = Channel(name), Record()
        channel.add(record)
        self.cluster.add(channel)
        return channel, record

    def move(self, slots: Slots) -> None:
        """As servers do it: who listens there is unsubscribed."""
        self.slots = slots
        for port, server in self.network.servers.items():
            for name in {name for session in server.sessions for name in session.channels}:
                if not any(key_slot(name) in each and owner == port for each, owner in slots.items()):
                    server.say(push(b"sunsubscribe", name), name)
                    for session in server.sessions:
                        session.channels.discard(name)

    def says(self) -> tuple[bool, str | None]:
        return self.cluster.ready, self.cluster.failure

    def server(self, port: int) -> FakeServer:
        return self.network.servers[port]


@asynccontextmanager
async def open_scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    async with trio.open_nursery() as nursery:
        scene = Scene(nursery)
        for module in (cluster_module, link_module):
            monkeypatch.setattr(module, "open_connection", scene.network.open_connection)
        yield scene
        nursery.cancel_scope.cancel()


async def publish(scene: Scene, results: list[str]) -> None:
    try:
        await scene.cluster.publish(ROOM, b"x")
        results.append("done")
    except (BackplaneUnavailable, ResponseError) as exc:
        results.append(str(exc))
