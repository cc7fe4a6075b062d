"""Channels follow their slots from master to master; on a fake network, by a fake clock."""

from __future__ import annotations

import math

import pytest
import trio
from redis.crc import key_slot
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.backplane.redis.cluster_scene import (
    ALMOST_ALL_AT_TWO,
    LAST,
    LOW_HIGH,
    ROOM,
    WITHOUT_ROOM,
    open_scene,
    publish,
)
from tests.backplane.redis.fake_server import array, bulk, integer
from trioroom.backplane.base import Lost
from trioroom.backplane.redis.location import Endpoint

# -- the map ---------------------------------------------------------------------------------------


async def test_ready_when_every_master_hears_its_own_probe(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as scene:
        scene.slots = LOW_HIGH
        assert not scene.cluster.ready
        await scene.run()
        assert scene.cluster.ready
        for port, slots in ((1, range(8_000)), (2, range(8_000, LAST + 1))):
            [probe] = {name for session in scene.server(port).sessions for name in session.channels}
            assert probe.startswith(b"probe:")
            assert key_slot(probe) in slots
        scene.server(2).latency = math.inf
        await trio.sleep(2.1)
        assert not scene.cluster.ready
        await trio.sleep(1)
        assert scene.cluster.failure == "fake:2: a probe did not come round within 2 s"


async def test_master_of_a_single_slot_has_a_probe(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    async with open_scene(monkeypatch) as scene:
        scene.slots = ALMOST_ALL_AT_TWO
        await scene.run()
        assert scene.cluster.ready
        assert len(scene.server(1).sessions) == 2


async def test_slots_without_a_master_are_told_and_looked_for(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as scene:
        scene.slots = WITHOUT_ROOM
        await scene.run()
        assert scene.says() == (False, "1 of 16384 slots have no master")
        channel, _ = scene.room()
        gone, _ = scene.room()
        scene.cluster.remove(gone)
        published: list[str] = []
        scene.nursery.start_soon(publish, scene, published)
        await trio.sleep(1)
        scene.slots = LOW_HIGH
        await trio.sleep(6)
        assert scene.says() == (True, None)
        assert (channel.live, published) == (True, ["done"])
        for scene.slots, live in ((WITHOUT_ROOM, False), (LOW_HIGH, True)):
            await trio.sleep(6)
            assert channel.live == live


async def test_node_that_gives_no_host_is_taken_for_the_one_that_was_asked(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as scene:
        for host in (b"$-1\r\n", bulk(b""), bulk(b"?")):
            slots = array(array(integer(0), integer(LAST), array(host, integer(1))))
            info = scene._answer([b"CLUSTER", b"INFO"])
            scene.server(1).answers[b"CLUSTER"] = lambda command, slots=slots, info=info: (  # type: ignore[misc]
                info if command[1] == b"INFO" else slots
            )
            assert set((await scene.cluster._ask()).values()) == {Endpoint("fake", 1)}


async def test_what_each_node_said_is_told_when_none_knows_and_forgotten_when_one_does(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_scene(monkeypatch) as scene:
        scene.server(1).latency = math.inf
        scene.state = b"fail"
        scene.nursery.start_soon(scene.cluster.run)
        await trio.sleep(20)
        failure = "no node knows the slots (fake:1: no answer within 2 s; fake:2: it says that the cluster is down)"
        assert scene.says() == (False, failure)
        assert caplog.messages == [f"redis cluster: {failure}; keeping the map there is"]
        scene.server(1).latency = 0
        scene.state = b"ok"
        await trio.sleep(6)
        assert scene.says() == (True, None)
        scene.state = b"fail"  # for those who look; links are up
        await trio.sleep(6)
        assert scene.says()[0]
        assert "the cluster is down" in str(scene.says()[1])
        scene.state = b"ok"
        await trio.sleep(6)
        assert scene.says() == (True, None)


async def test_other_nodes_are_asked_when_the_first_is_gone(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as scene:
        await scene.run()
        _, record = scene.room()
        await wait_all_tasks_blocked()
        scene.network.remove(1)
        scene.slots = {range(LAST + 1): 2}
        await trio.sleep(1)
        assert scene.cluster.ready
        await scene.cluster.publish(ROOM, b"x")
        assert record.heard == [Lost("backplane"), b"x"]
