"""What histories survive: a server that restarts with its data, without, or with older ones, and a cluster's failover."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from tests.backplane.nats.history_node import KEPT, ROOM, HistoryNode, open_node, payloads
from tests.backplane.nats.servers import NatsCluster, NatsServer, open_nats_cluster
from trioroom._core.history import History, Kept, Page, Position, same_place
from trioroom.backplane.base import Lost
from trioroom.backplane.nats import NatsSettings
from trioroom.errors import BackplaneUnavailable
from trioroom.testing.histories import listening

pytestmark = pytest.mark.nats

QUICK = NatsSettings(timeout=10, probe_interval=0.2, probe_timeout=0.5, max_backoff=0.1)


@asynccontextmanager
async def outage(*nodes: HistoryNode) -> AsyncIterator[None]:
    """In which the server dies and comes back; left when all nodes are connected to it again."""
    before = [node.backplane._link.server.id for node in nodes]
    yield
    for node, incarnation in zip(nodes, before, strict=True):
        while not (node.backplane.ready and node.backplane._link.server.id != incarnation):
            await trio.sleep(0.01)


class Copy:
    """What a server had at one time; it can have that again."""

    def __init__(self, server: NatsServer) -> None:
        self._store = server._directory / "store"
        self._copy = server._directory / "copy"

    def take(self) -> None:
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._store, self._copy)

    def restore(self) -> None:
        shutil.rmtree(self._store)
        shutil.copytree(self._copy, self._store)


async def test_epoch_goes_on_in_another_after_a_restart_with_all_data(nats_server: NatsServer) -> None:
    async with open_node(nats_server.url, settings=QUICK) as node, open_node(nats_server.url, settings=QUICK) as other:
        before = await node.publish(b"1", b"2")
        async with outage(node, other):
            await nats_server.restart()
        page = await node.read(before.offset - 1, seen=before)
        assert (page.previous, page.position.offset) == (Position(before.epoch, page.position.offset), before.offset)
        assert page.position.epoch != before.epoch
        assert same_place(before, page.position, page.previous) == Position(page.position.epoch, before.offset)
        assert payloads(page) == [b"2"]
        after = await other.publish(b"3")
        assert after.epoch == page.position.epoch
        assert payloads(await node.read(0, seen=before)) == [b"1", b"2", b"3"]
        assert payloads(await node.read(0, seen=after)) == [b"1", b"2", b"3"]


async def test_memory_that_is_gone_ends_the_epoch(nats_server: NatsServer) -> None:
    settings = attrs.evolve(QUICK, storage="memory")
    async with open_node(nats_server.url, settings=settings) as node:
        before = await node.publish(b"1", b"2")
        async with outage(node):
            await nats_server.restart()
        page = await node.read(0, seen=before)
        assert (page.previous, page.kept) == (None, ())
        assert page.position.epoch != before.epoch
        after = await node.publish(b"3")
        assert after.epoch == page.position.epoch
        assert payloads(await node.read(0, seen=after)) == [b"3"]


async def test_older_data_after_a_restart_end_the_epoch(nats_server: NatsServer) -> None:
    copy = Copy(nats_server)
    async with open_node(nats_server.url, settings=QUICK) as node:
        first = await node.publish(b"1", b"2")
        async with outage(node):
            nats_server.kill()
            copy.take()
            await nats_server.restart()
        lost = await node.publish(b"3", b"4")
        async with outage(node):
            nats_server.kill()
            copy.restore()
            await nats_server.restart()
        async with open_node(nats_server.url, settings=QUICK) as other:  # which has not seen what is lost
            await other.publish(*[b"other"] * 9)  # more than were lost
            page = await node.read(0, seen=lost)
            assert same_place(lost, page.position, page.previous) is None
            assert same_place(first, page.position, page.previous) is None
            assert page.position.epoch not in (lost.epoch, first.epoch)
            there = await other.read(0)
            assert there.position == page.position
            new = await other.publish(b"new")
            assert new.epoch == page.position.epoch
            assert payloads(await node.read(page.position.offset, seen=new)) == [b"new"]


async def test_what_this_node_has_published_and_nobody_has_read_counts_too(nats_server: NatsServer) -> None:
    copy = Copy(nats_server)
    async with open_node(nats_server.url, settings=QUICK) as node:
        first = await node.publish(b"1")
        async with outage(node):
            nats_server.kill()
            copy.take()
            await nats_server.restart()
        await attrs.evolve(node, room="quiet").publish(b"lost")
        async with outage(node):
            nats_server.kill()
            copy.restore()
            await nats_server.restart()
        page = await node.read(0, seen=first)
        assert (page.previous, page.kept) == (None, ())


async def test_stream_that_is_made_anew_while_we_look_ends_the_epoch(nats_server: NatsServer) -> None:
    async with open_node(nats_server.url, settings=QUICK) as node:
        async with listening(node.backplane.history, ROOM) as receive:
            before = await node.publish(*[b"x"] * 9)
            for _ in range(9):
                await receive.receive()
            await nats_server.ask("$JS.API.STREAM.DELETE.trioroom_history")
            page = await node.read(0, seen=before)
            assert (page.previous, page.kept) == (None, ())
            assert page.position.epoch != before.epoch
            after = await node.publish(b"y")
            assert after.epoch == page.position.epoch
            heard = [await receive.receive()]
            if isinstance(heard[0], Lost):
                heard.append(await receive.receive())
            assert heard[-1] == Kept(after.epoch, after.offset, b"y", 0.0, 0)
            assert payloads(await node.read(0, seen=after)) == [b"y"]
