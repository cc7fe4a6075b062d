"""What histories survive: a server that restarts with its data, without them or with older ones."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio

from tests.backplane.history_node import ROOM, HistoryNode, follow, payloads
from tests.backplane.nats.brokers import open_node
from tests.backplane.nats.servers import NatsServer
from tests.backplane.processes import until
from trioroom._core.history import History, Kept, Position, same_place
from trioroom.backplane.base import Lost
from trioroom.backplane.nats import NatsBackplane, NatsSettings
from trioroom.errors import BackplaneUnavailable
from trioroom.testing.histories import listening

pytestmark = pytest.mark.nats

QUICK = NatsSettings(timeout=10, probe_interval=0.2, probe_timeout=0.5, max_backoff=0.1)


@asynccontextmanager
async def outage(*nodes: HistoryNode[NatsBackplane]) -> AsyncIterator[None]:
    """In which the server dies and comes back; left when all nodes are connected to it again."""
    before = [node.backplane._link.server.id for node in nodes]
    yield

    async def all_are_back() -> bool:
        now = [node.backplane._link.server.id for node in nodes]
        return all(node.backplane.ready for node in nodes) and not set(now) & set(before)

    await until(all_are_back, "all nodes are connected again")


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
    async with open_node(nats_server.url, settings=attrs.evolve(QUICK, history_streams=1)) as node:
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
            for number in range(4):
                await nats_server.ask(f"$JS.API.STREAM.DELETE.trioroom_history_{number}")
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


async def test_publications_around_restarts_are_all_there_or_their_loss_is_told(nats_server: NatsServer) -> None:
    """Killed while many publish: who follows the history has all that was confirmed, once and in order."""
    history = History(1_000)
    confirmed: list[bytes] = []
    async with (
        open_node(nats_server.url, history, QUICK) as node,
        open_node(nats_server.url, history, QUICK) as other,
        listening(other.backplane.history, ROOM, max_publications=50) as channel,
        trio.open_nursery() as nursery,
    ):
        heard: list[bytes | None] = []

        async def publish(number: int, nodes: list[HistoryNode[NatsBackplane]]) -> None:
            for index in range(150):
                payload = b"%d %d" % (number, index)
                while True:
                    with suppress(BackplaneUnavailable):
                        await nodes[index % 2].backplane.history.publish(ROOM, payload, history, payload.decode())
                        break
                confirmed.append(payload)
                await trio.sleep(0.005)

        await nursery.start(follow, other, channel, heard)
        async with trio.open_nursery() as publishers:
            for number in range(6):
                publishers.start_soon(publish, number, [node, other])
            for _ in range(3):
                await trio.sleep(0.2)
                async with outage(node, other):
                    await nats_server.restart()
        await node.publish(b"end")

        async def has_ended() -> bool:
            return heard[-1:] == [b"end"]

        await until(has_ended, "all has been heard")
        assert None not in heard, "a process that dies loses nothing that the system has"
        assert len(heard) == len(set(heard)) == 901
        assert set(heard) == {*confirmed, b"end"}
        for number in range(6):
            mine = [payload for payload in heard if payload and payload.startswith(b"%d " % number)]
            assert mine == [b"%d %d" % (number, index) for index in range(150)]
        nursery.cancel_scope.cancel()


async def test_streams_that_somebody_removes_are_made_anew_by_who_publishes(nats_server: NatsServer) -> None:
    settings = attrs.evolve(QUICK, history_streams=1, timeout=0.5)
    async with open_node(nats_server.url, settings=settings) as node:
        before = await node.publish(*[b"x"] * 9)
        await nats_server.ask("$JS.API.STREAM.DELETE.trioroom_history_0")
        with pytest.raises(BackplaneUnavailable, match="nobody at the broker answers"):
            await node.publish(b"1")
        after = await node.publish(b"2")
        assert after.epoch != before.epoch
        page = await node.read(0, seen=before)
        assert (page.position, page.previous, payloads(page)) == (after, None, [b"2"])
