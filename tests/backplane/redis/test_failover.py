"""Another server takes over, or takes a slot: nodes follow, and only the rooms that were there notice."""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial
from itertools import count

import pytest
import trio
from redis.crc import key_slot

from tests.backplane.observers import DEAF_AND_READY, open_flow, open_nodes
from tests.backplane.processes import until
from tests.backplane.redis.servers import Cluster, RedisServer, Sentinels, binaries, open_cluster
from trioroom.backplane.base import Lost
from trioroom.errors import BackplaneUnavailable
from trioroom.testing.conformance import subscribed

pytestmark = pytest.mark.redis

ROOMS = ("chat/a", "chat/b", "chat/c")
AGAIN = 3.0  # seconds from the end of the failover until traffic flows
FAILOVER = 15.0  # until the servers themselves are done; it takes two or three
DETOUR = 10.0  # until a publication has come or has failed: once the default timeout at each of two masters


# -- sentinels ---------------------------------------------------------------------------------------


async def listeners(server: RedisServer) -> int:
    """How many connections listen at ``server``, the links of its replicas and sentinels aside."""
    clients: bytes = await server.command("CLIENT", "LIST", "TYPE", "pubsub")
    return clients.count(b"name=trioroom ")


async def replica_is_master(sentinels: Sentinels) -> None:
    async def is_master() -> bool:
        return await sentinels.master_now() is sentinels.replica

    start = trio.current_time()
    await until(is_master, "a failover", FAILOVER)
    print(f"failover of the sentinels: {trio.current_time() - start:.2f} s")


async def test_nodes_follow_sentinels_to_the_new_master(sentinels: Sentinels) -> None:
    async with open_nodes(sentinels.url, sentinels.url) as nodes, open_flow(nodes, ROOMS) as flow:
        sentinels.master.kill()
        await flow.becomes(False, within=0.5)
        await replica_is_master(sentinels)
        await flow.flows(AGAIN)
        await flow.becomes(True, within=0.5)
    assert flow.noticed() == {(node, room) for node in (0, 1) for room in ROOMS}


async def test_master_that_was_cut_off_and_comes_back_is_left_alone(sentinels: Sentinels) -> None:
    patient = f"{sentinels.url}?probe_timeout=30"  # has to hear from the sentinels that it listens at the wrong place
    async with open_nodes(sentinels.url, patient) as nodes, open_flow(nodes, ROOMS) as flow:
        assert await listeners(sentinels.master) == 2
        sentinels.master.stop()
        await replica_is_master(sentinels)
        await flow.flows(AGAIN)
        sentinels.master.resume()  # it does not know yet
        told = {observer: len(flow.losses(observer)) for observer in flow.noticed()}
        await trio.sleep(1.5)  # time for the wrong step: a probe, and a look at the sentinels
        await flow.flows(0.5)
        assert await listeners(sentinels.replica) == 2
        assert await listeners(sentinels.master) == 0
        assert told == {(node, room): 1 for node in (0, 1) for room in ROOMS}
    assert told == {observer: len(flow.losses(observer)) for observer in flow.noticed()}


# -- a cluster ---------------------------------------------------------------------------------------


def slot_of(room: str) -> int:
    return key_slot(b"trioroom:room:" + room.encode())


async def rooms_by_master(cluster: Cluster, each: int) -> list[list[str]]:
    """So many rooms at each of the masters."""
    rooms: list[list[str]] = [[] for _ in cluster.masters]
    for number in count():
        if all(len(there) == each for there in rooms):
            return rooms
        there = rooms[cluster.masters.index(await cluster.owner(slot_of(f"chat/{number}")))]
        if len(there) < each:
            there.append(f"chat/{number}")
    raise AssertionError("unreachable: numbers do not end")


async def test_only_rooms_of_a_moved_slot_notice(cluster: Cluster) -> None:
    rooms = await rooms_by_master(cluster, 2)
    moving = rooms[0][0]
    async with open_nodes(cluster.url, cluster.url, cluster.url) as (*nodes, listening):
        flowing = open_flow(nodes, [room for there in rooms for room in there])
        async with flowing as flow, subscribed(listening, moving, 4096) as deliveries:
            for target in (cluster.masters[1], cluster.masters[0]):  # there, and back
                await cluster.move_slot(slot_of(moving), target)
                with trio.fail_after(1):  # no publication of its own tells that node
                    while not isinstance(await deliveries.receive(), Lost):
                        pass
                await flow.flows(AGAIN)
                await flow.becomes(True, within=0.5)
        assert flow.noticed() == {(0, moving), (1, moving)}
        assert all(flow.failures(room) == 0 for room in flow.rooms)


async def test_only_rooms_of_a_killed_master_notice() -> None:
    async with open_cluster(binaries()["valkey"], replicas=1) as cluster:
        rooms = await rooms_by_master(cluster, 2)
        killed, *others = rooms
        async with open_nodes(cluster.url, cluster.url) as nodes:
            async with open_flow(nodes, [room for there in rooms for room in there]) as flow:
                start = trio.current_time()
                cluster.masters[0].kill()
                await flow.becomes(False, within=0.5)
                in_flight = [flow.failures(room) for room in killed]
                await until(partial(has_new_owner, cluster, slot_of(killed[0])), "a failover", FAILOVER)
                print(f"failover of the cluster: {trio.current_time() - start:.2f} s")
                await flow.flows(AGAIN)
                await flow.becomes(True, within=0.5)
            assert flow.noticed() == {(node, room) for node in (0, 1) for room in killed}
            assert all(flow.failures(room) == 0 for there in others for room in there)
            assert in_flight == [flow.failures(room) for room in killed], "the rest waits for the new master"


async def test_master_of_a_cluster_that_was_cut_off_and_comes_back_is_left_alone() -> None:
    async with open_cluster(binaries()["valkey"], replicas=1) as cluster:
        rooms = await rooms_by_master(cluster, 2)
        stopped = cluster.masters[0]
        async with open_nodes(cluster.url, cluster.url) as nodes:
            # The old master finds in its kernel what it was sent, and passes it on to the new one: as its replica now.
            async with open_flow(nodes, [r for there in rooms for r in there], failed_may_be_late=True) as flow:
                stopped.stop()
                await flow.told(DEAF_AND_READY + AGAIN, rooms[0])
                await flow.flows(AGAIN)
                stopped.resume()
                await trio.sleep(1.5)  # time for the wrong step: a probe
                await flow.flows(0.5)
                assert await listeners(stopped) == 0
            assert {observer: len(flow.losses(observer)) for observer in flow.noticed()} == {
                (node, room): 1 for node in (0, 1) for room in rooms[0]
            }


async def test_only_rooms_of_a_lost_master_notice_that_the_whole_cluster_is_down(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "trioroom.backplane")

    async def has_state(state: bytes) -> bool:
        return all([b"cluster_state:" + state in await node.command("CLUSTER", "INFO") for node in cluster.masters[1:]])

    rooms = await rooms_by_master(cluster, 2)
    async with open_nodes(cluster.url, cluster.url) as nodes:
        async with open_flow(nodes, [room for there in rooms for room in there]) as flow:
            cluster.masters[0].kill()
            await until(partial(has_state, b"fail"), "the cluster is down", FAILOVER)
            down_since = trio.current_time()
            for _ in range(3):  # longer than a silent link may live
                await flow.flows(0.5, rooms=[room for there in rooms[1:] for room in there])
                await trio.sleep(0.8)
            assert not any(flow.was_ready(node, down_since) for node in (0, 1))
            await cluster.masters[0].restart()
            await until(partial(has_state, b"ok"), "the cluster is up", FAILOVER)
            await flow.flows(AGAIN)
            await flow.becomes(True, within=0.5)
        assert flow.noticed() == {(node, room) for node in (0, 1) for room in rooms[0]}
        assert all(flow.failures(room) == 0 for there in rooms[1:] for room in there)
    assert caplog.messages
    assert max(Counter(caplog.messages).values()) <= len(nodes), "something was logged again and again"


async def has_new_owner(cluster: Cluster, slot: int) -> bool:
    """In the eyes of each node that lives, and all of them are content with that."""
    for node in cluster.nodes:
        if node.alive:
            owner, info = await cluster.owner(slot, asked=node), await node.command("CLUSTER", "INFO")
            if owner is cluster.masters[0] or b"cluster_state:ok" not in info:
                return False
    return True


async def test_publishers_that_crowd_at_a_killed_master_all_return() -> None:
    publishers, max_queued = 50, 4
    returned = 0

    async def publish(number: int) -> None:
        nonlocal returned
        try:
            await node.publish(room, b"%d" % number)
        except BackplaneUnavailable:
            pass  # in flight, or a long failover
        returned += 1

    async with open_cluster(binaries()["valkey"], replicas=1) as cluster:
        room = (await rooms_by_master(cluster, 1))[0][0]
        async with open_nodes(f"{cluster.url}?max_queued_publications={max_queued}") as (node,):
            cluster.masters[0].kill()
            with trio.move_on_after(DETOUR):
                async with trio.open_nursery() as nursery:
                    for number in range(publishers):
                        nursery.start_soon(publish, number)
            assert returned == publishers
            with trio.fail_after(DETOUR):
                await node.publish(room, b"as before")
