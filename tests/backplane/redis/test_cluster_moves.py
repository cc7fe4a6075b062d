"""Channels and publications follow their slots from one master to another."""

from __future__ import annotations

import itertools

import pytest
import trio
from redis.crc import key_slot
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.backplane.redis.cluster_scene import (
    ALMOST_ALL_AT_TWO,
    HIGH_LOW,
    LAST,
    LOW_HIGH,
    ONE,
    ROOM,
    SLOT,
    open_scene,
    publish,
)
from tests.backplane.redis.fake_server import bulk, error, push
from trioroom.backplane.base import Lost
from trioroom.testing import cancel_at_step


async def test_channels_follow_their_slots_to_a_new_master_and_tell_the_gap(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as scene:
        await scene.run()
        channel, record = scene.room()
        low, heard_by_low = scene.room(b"a0")
        assert key_slot(b"a0") < 8_000 < key_slot(ROOM)
        gone, _ = scene.room(b"gone")
        scene.cluster.remove(gone)
        await wait_all_tasks_blocked()
        await scene.cluster.publish(ROOM, b"1")
        assert scene.server(1).channels() == {ROOM, b"a0"}
        scene.move(LOW_HIGH)
        await wait_all_tasks_blocked()
        assert not scene.cluster.ready
        await trio.sleep(1)
        assert (scene.cluster.ready, channel.live, low.live) == (True, True, True)
        await scene.cluster.publish(ROOM, b"2")
        assert (scene.server(1).channels(), scene.server(2).channels()) == ({b"a0"}, {ROOM})
        assert record.heard == [b"1", Lost("backplane"), b"2"]
        assert set(heard_by_low.heard) <= {Lost("backplane")}
        scene.cluster.remove(channel)
        scene.cluster.remove(low)
        await wait_all_tasks_blocked()
        assert scene.server(1).channels() | scene.server(2).channels() == set()


async def test_channel_is_asked_for_again_where_it_was_when_its_slot_has_come_back(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as scene:
        await scene.run()
        channel, record = scene.room()
        await wait_all_tasks_blocked()
        server = scene.server(1)
        server.say(push(b"sunsubscribe", ROOM), ROOM)  # its slot left for a moment in which nobody looked
        for session in server.sessions:
            session.channels.discard(ROOM)
        await wait_all_tasks_blocked()
        assert (scene.cluster.ready, channel.live) == (False, False)
        await trio.sleep(1)
        assert (scene.cluster.ready, channel.live, record.heard) == (True, True, [Lost("backplane")])
        assert len(scene.network.opened) == 1 + 2 + 1  # the link was there all the time


async def test_probe_whose_subscription_was_refused_for_a_moment_does_not_keep_it_unready(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as scene:
        scene.server(1).refuse(b"SSUBSCRIBE", "CLUSTERDOWN Hash slot not served")
        await scene.run()
        assert not scene.cluster.ready
        del scene.server(1).answers[b"SSUBSCRIBE"]
        await trio.sleep(10)
        assert scene.cluster.ready


async def test_shards_that_have_no_slots_any_more_go_and_come_again(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_scene(monkeypatch) as scene:
        scene.slots = LOW_HIGH
        await scene.run()
        for slots, sessions in ((ONE, (2, 0)), (HIGH_LOW, (2, 2)), (LOW_HIGH, (2, 2))):
            scene.move(slots)
            await trio.sleep(12)
            assert scene.cluster.ready
            assert tuple(len(scene.server(port).sessions) for port in (1, 2)) == sessions


async def test_publication_goes_out_again_when_the_slot_has_moved(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as scene:
        await scene.run()
        published: list[str] = []
        scene.server(1).answers[b"SPUBLISH"] = lambda _: error(f"MOVED {SLOT} fake:2")
        scene.slots = {range(LAST + 1): 2}
        await publish(scene, published)
        assert published == ["done"]
        assert [b"SPUBLISH", ROOM, b"x"] in scene.server(2).log


async def test_command_goes_to_the_server_of_its_key_with_its_incarnation_and_after_it_when_it_moves(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as scene:
        for port, answer in ((1, lambda _: error(f"MOVED {SLOT} fake:2")), (2, lambda _: bulk(b"reply"))):
            server = scene.server(port)
            server.incarnation = b"of %d" % port
            server.answers[b"EVALSHA"] = answer
        await scene.run()
        scene.slots = ALMOST_ALL_AT_TWO  # nobody has looked yet
        assert await scene.cluster.call(ROOM, lambda incarnation: (b"EVALSHA", incarnation)) == b"reply"
        for port in (1, 2):
            calls = [command for command in scene.server(port).log if command[0] == b"EVALSHA"]
            assert calls == [[b"EVALSHA", b"of %d" % port]]


async def test_publication_that_nobody_takes_fails_after_timeout(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as scene:
        await scene.run()
        published: list[str] = []
        scene.server(1).answers[b"SPUBLISH"] = lambda _: error("CLUSTERDOWN no")
        begin = trio.current_time()
        await publish(scene, published)
        assert published == ["no node of the cluster took a publication within timeout=5 s; retry later"]
        assert trio.current_time() - begin == pytest.approx(5)
        scene.server(1).answers[b"SPUBLISH"] = lambda _: error("NOPERM no")
        await publish(scene, published)
        assert published[1:] == ["NOPERM no"]


async def test_publications_that_wait_for_a_shard_that_goes_are_published_at_the_next(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as scene:
        await scene.run()
        published: list[str] = []
        scene.network.remove(1)
        await wait_all_tasks_blocked()
        for _ in range(3):
            scene.nursery.start_soon(publish, scene, published)
        scene.slots = {range(LAST + 1): 2}
        await trio.sleep(2)
        assert published == ["done"] * 3


async def test_publish_and_subscribe_can_be_cancelled_at_any_step(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as scene:
        scene.slots = LOW_HIGH
        await scene.run()
        links = [shard.link for shard in scene.cluster._shards.values()]
        for step in itertools.count():
            with cancel_at_step(step) as scope:
                channel, _ = scene.room()
                try:
                    await channel.wait_live()
                    await scene.cluster.publish(ROOM, b"x")
                finally:
                    scene.cluster.remove(channel)
            await wait_all_tasks_blocked()
            assert [link.publisher.queued for link in links] == [0, 0], f"cancelled at step {step}"
            assert [len(link.subscriber.channels) for link in links] == [1, 1], f"cancelled at step {step}"
            assert scene.server(1).channels() | scene.server(2).channels() == set()
            if not scope.cancelled_caught:
                break
        assert step > 5
