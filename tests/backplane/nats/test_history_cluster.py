"""Histories that three servers of a cluster have, of which one dies: the others go on."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import attrs
import pytest
import trio

from tests.backplane.history_node import ROOM, HistoryNode, follow, payloads
from tests.backplane.nats.brokers import open_node
from tests.backplane.nats.servers import NatsCluster, open_nats_cluster
from tests.backplane.processes import until
from trioroom._core.history import History, Kept
from trioroom.backplane.nats import NatsBackplane, NatsSettings
from trioroom.errors import BackplaneUnavailable
from trioroom.testing.histories import listening

pytestmark = pytest.mark.nats

SETTINGS = NatsSettings(timeout=15, probe_interval=0.2, probe_timeout=1.0, max_backoff=0.2, replicas=3)
LARGE = History(1_000)


async def leader_of(cluster: NatsCluster, prefix: str = SETTINGS.prefix) -> int:
    """The number of the server that has the histories."""
    found = await cluster.leader_of(f"{prefix}_history_{zlib.crc32(ROOM.encode()) % 4}")
    assert found is not None
    return cluster.servers.index(found)


async def publish_each(node: HistoryNode[NatsBackplane], number: int, count: int) -> None:
    """Each until it has been confirmed."""
    for index in range(count):
        payload = b"%d %d" % (number, index)
        while True:
            try:
                await node.backplane.history.publish(ROOM, payload, LARGE, payload.decode())
                break
            except BackplaneUnavailable:
                await trio.sleep(0.05)
        await trio.sleep(0.01)


async def test_nothing_is_lost_when_the_server_that_has_the_histories_dies() -> None:
    async with (
        open_nats_cluster() as cluster,
        open_node(cluster.url, LARGE, SETTINGS, 90) as here,
        open_node(cluster.url, LARGE, SETTINGS, 90) as there,
        listening(there.backplane.history, ROOM) as channel,
        trio.open_nursery() as nursery,
    ):
        heard: list[bytes | None] = []

        await nursery.start(follow, there, channel, heard)
        first = await here.publish(b"first")
        async with trio.open_nursery() as publishers:
            for number in range(4):
                publishers.start_soon(publish_each, [here, there][number % 2], number, 100)
            await trio.sleep(0.3)
            cluster.servers[await leader_of(cluster)].kill()
        last = await here.publish(b"end")

        async def has_ended() -> bool:
            return heard[-1:] == [b"end"]

        await until(has_ended, "all has been heard", 30)
        assert None not in heard
        assert len(heard) == len(set(heard)) == 402
        assert last.epoch == first.epoch, "the others had all that was confirmed"
        for number in range(4):
            mine = [payload for payload in heard if payload and payload.startswith(b"%d " % number)]
            assert mine == [b"%d %d" % (number, index) for index in range(100)]
        page = await attrs.evolve(there, history=History(5)).read(first.offset, seen=last)
        assert payloads(page)[-1] == b"end"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("replicas", [1, 3])
async def test_what_is_published_right_after_subscribing_at_another_server_comes(
    replicas: int, shared_nats_cluster: NatsCluster
) -> None:
    cluster, settings = shared_nats_cluster, attrs.evolve(SETTINGS, replicas=replicas, prefix=f"after{replicas}")
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(open_node(server.url, settings=settings, deadline=90))
            for server in cluster.servers
        ]
        at_leader = nodes[await leader_of(cluster, settings.prefix)]
        for number in range(50):
            room = f"{number}"
            for node in nodes:
                async with listening(node.backplane.history, room) as channel:
                    await attrs.evolve(at_leader, room=room).publish(b"x")
                    with trio.fail_after(10):
                        assert isinstance(await channel.receive(), Kept)


async def test_servers_that_forget_all_end_the_epoch() -> None:
    settings = attrs.evolve(SETTINGS, storage="memory")
    async with open_nats_cluster() as cluster, open_node(cluster.url, settings=settings, deadline=90) as node:
        before = await node.publish(b"1", b"2")
        for server in cluster.servers:
            server.kill()
        async with trio.open_nursery() as nursery:
            for server in cluster.servers:
                nursery.start_soon(server.restart)

        async def is_back() -> bool:
            return node.backplane.ready

        await trio.sleep(1.0)  # so that the link has noticed
        await until(is_back, "the link is up again", 60)
        page = await node.read(0, seen=before)
        assert (page.previous, page.kept) == (None, ())
        assert page.position.epoch != before.epoch
        after = await node.publish(b"3")
        assert payloads(await node.read(0, seen=after)) == [b"3"]


async def find_prefix_with_a_server_apart(cluster: NatsCluster) -> str:
    """Of which not all histories are where its relay is: the cluster puts them where it likes, often in one place."""
    for prefix in map("p{}".format, range(40)):
        async with open_node(cluster.url, settings=attrs.evolve(SETTINGS, replicas=1, prefix=prefix)):
            relay = await cluster.leader_of(f"{prefix}_relay")
            for part in range(4):
                if (await cluster.leader_of(f"{prefix}_history_{part}")) not in (None, relay):
                    return prefix
    pytest.fail("all histories are where the relay is, with each prefix")


async def tried(publish: Callable[[int], Awaitable[bool]], *parts: int) -> dict[int, bool]:
    """What comes of it, side by side, as each that is in vain takes all its time."""
    results: dict[int, bool] = {}

    async def try_one(part: int) -> None:
        results[part] = await publish(part)

    async with trio.open_nursery() as nursery:
        for part in parts:
            nursery.start_soon(try_one, part)
    return results


async def test_rooms_elsewhere_do_not_wait_for_a_stream_whose_only_server_is_away() -> None:
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(open_nats_cluster())
        prefix = await find_prefix_with_a_server_apart(cluster)
        settings = attrs.evolve(SETTINGS, replicas=1, timeout=3, prefix=prefix)
        node = await stack.enter_async_context(open_node(cluster.url, settings=settings, deadline=90))
        rooms = {zlib.crc32(b"%d" % number) % 4: attrs.evolve(node, room=str(number)) for number in range(40)}
        before = {part: await room.publish(b"1") for part, room in rooms.items()}
        leaders = {part: await cluster.leader_of(f"{prefix}_history_{part}") for part in rooms}
        relay = await cluster.leader_of(f"{prefix}_relay")
        away = next(leader for leader in leaders.values() if leader not in (None, relay))
        assert away is not None
        away.kill()
        for server in cluster.servers:
            if server is not away:
                await server.kick_clients()

        async def publish(*parts: int) -> bool:
            try:
                return all([(await rooms[part].publish(b"2")).epoch == before[part].epoch for part in parts])
            except BackplaneUnavailable:
                return False

        async def is_back() -> bool:
            return node.backplane.ready and node.backplane.meters.outages > 0

        await until(is_back, "the link is up again", 30)
        await until(lambda: publish(*[part for part in rooms if leaders[part] is not away]), "the others go on", 30)
        assert await tried(publish, *rooms) == {part: leaders[part] is not away for part in rooms}
        await away.restart()
        await until(lambda: publish(*rooms), "all rooms are there again", 40)
        for part, room in rooms.items():
            assert payloads(await room.read(before[part].offset - 1))[0] == b"1"


async def test_server_that_has_the_histories_hears_of_us_before_rooms_are_live_again(
    shared_nats_cluster: NatsCluster,
) -> None:
    """With one copy too: the server that we are connected to is seldom the one that has it."""
    settings = attrs.evolve(SETTINGS, replicas=1, history_streams=1, prefix="heard")
    async with open_node(shared_nats_cluster.url, settings=settings, deadline=60) as node:
        stream = node.backplane.history._parts[0]._stream

        async def count_stored() -> int:
            return (await stream.ask_state()).last_sequence

        async def is_back() -> bool:
            return node.backplane.ready and node.backplane.meters.outages > 0

        async with listening(node.backplane.history, ROOM):
            await node.publish(b"1")
            before = await count_stored()
            for server in shared_nats_cluster.servers:
                await server.kick_clients()
            await until(is_back, "the link is up again", 30)
            after = await count_stored()
            assert after > before, "by which it says that it knows of our subscriptions"
            await node.read()
            assert await count_stored() == after
