"""What a link counts: outages, how long publications take, and how many go together."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.backplane.redis.fake_server import FakeNetwork, integer
from tests.backplane.redis.scenes import keep_talking, open_link, open_publisher
from trioroom.backplane.base import Counting
from trioroom.backplane.memory import MemoryBackplane
from trioroom.backplane.redis import link, open_redis

SILENCE = 3.1  # seconds after which a link is given up, with the defaults


async def test_backplane_with_a_broker_counts_and_the_one_without_does_not(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    assert not isinstance(MemoryBackplane(), Counting)
    network = FakeNetwork(nursery)
    monkeypatch.setattr(link, "open_connection", network.open_connection)
    network.add()
    async with open_redis("redis://fake:1") as backplane:
        assert isinstance(backplane, Counting)
        await backplane.publish("room", b"x")
        assert backplane.meters.batches.sum >= 2  # with a probe
        assert backplane.meters.outages == 0


async def test_probes_tell_how_long_a_publication_takes_to_come_round(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_link(monkeypatch) as scene:
        server = await scene.run()
        server.latency = 0.02
        await trio.sleep(10.5)
        trips = scene.meters.round_trips
        assert trips.count == 11
        assert trips.sum == pytest.approx(10 * 0.02, rel=0.5)


async def test_lag_that_is_longer_than_a_look_at_it_is_told_too(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_link(monkeypatch) as scene:
        scene.room()
        server = await scene.run()
        scene.nursery.start_soon(keep_talking, scene)
        server.latency = 1.5
        await trio.sleep(20)
        assert scene.link.ready
        counts = dict(zip(scene.meters.round_trips.bounds, scene.meters.round_trips.cumulative(), strict=False))
        assert counts[0.3] == 1
        assert counts[3.0] > 1


async def test_outage_counts_once_however_it_ends(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    async with open_link(monkeypatch) as scene:
        server = await scene.run()
        assert scene.meters.outages == 0
        for outages in (1, 2):
            server.latency = math.inf
            await trio.sleep(SILENCE)
            server.latency = 0
            await trio.sleep(5)
            assert scene.link.ready
            assert scene.meters.outages == outages


async def test_attempts_that_come_to_nothing_are_no_outages(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_link(monkeypatch) as scene:
        scene.network.add().latency = math.inf
        await scene.run()
        await trio.sleep(60)
        assert scene.attempts > 3
        assert scene.meters.outages == 0


async def test_commands_that_go_together_are_one_batch_and_answered_in_one_time(autojump_clock: MockClock) -> None:
    async with open_publisher() as scene:
        await scene.publish(b"a", b"b", b"c")
        peer = await scene.connect()
        await trio.sleep(0.02)
        await peer.say(integer(0), integer(0), integer(0))
        await wait_all_tasks_blocked()
        meters = scene.publisher._meters
        assert (meters.batches.count, meters.batches.sum) == (1, 3)
        assert meters.publishing.count == 1
        assert meters.publishing.sum == pytest.approx(0.02)
