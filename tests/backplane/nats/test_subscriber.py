"""Which subscriptions go out and when they count, over connections that come and go."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.backplane.nats.scenes import open_subscriber
from trioroom.backplane.base import Lost
from trioroom.backplane.nats.channel import NatsChannel
from trioroom.backplane.supervision import LinkLost
from trioroom.errors import BackplaneError


def lines_of(first: int, names: list[bytes]) -> list[bytes]:
    return [b"SUB %b %d" % (name, sid) for sid, name in enumerate(names, first)]


async def test_channel_is_live_when_what_was_sent_behind_it_is_answered() -> None:
    async with open_subscriber() as scene:
        peer = await scene.connect()
        channel, record = scene.add(b"a")
        assert await peer.read() == lines_of(17, [b"a"])
        scene.say(17, b"before")
        assert not channel.live
        await scene.confirm()
        assert channel.live
        scene.say(17, b"after")
        scene.say(99, b"of nobody")
        assert record.heard == [b"after"]


async def test_left_and_joined_in_one_breath_hears_its_own_subscription_only() -> None:
    async with open_subscriber() as scene:
        peer = await scene.connect()
        old, heard_by_old = scene.add(b"a")
        await peer.read()
        await scene.confirm()
        scene.subscriber.remove(old)
        new, heard_by_new = scene.add(b"a")
        assert await peer.read() == [b"SUB a 18", b"UNSUB 17"]
        scene.say(17, b"old")
        await scene.confirm()
        scene.say(17, b"old")
        scene.say(18, b"new")
        assert (heard_by_old.heard, heard_by_new.heard, new.live) == ([], [b"new"], True)


async def test_confirmation_of_what_was_left_meanwhile_makes_nothing_live() -> None:
    async with open_subscriber() as scene:
        peer = await scene.connect()
        gone, _ = scene.add(b"a")
        await peer.read()
        scene.subscriber.remove(gone)
        again, _ = scene.add(b"a")
        await scene.confirm()
        assert (gone.live, again.live) == (False, False)
        assert await peer.read() == [b"SUB a 18", b"UNSUB 17"]
        await scene.confirm()
        assert again.live


async def test_one_that_is_left_before_it_was_asked_for_is_not_asked_for() -> None:
    async with open_subscriber() as scene:
        peer = await scene.connect()
        gone, _ = scene.add(b"a")
        scene.subscriber.remove(gone)
        assert await peer.read() == [b"UNSUB 17"]


async def test_at_most_512_go_out_before_those_before_are_confirmed() -> None:
    async with open_subscriber() as scene, trio.open_nursery() as waiting:
        names = [b"%d" % number for number in range(1_200)]
        channels = [scene.add(name)[0] for name in names]
        waiting.start_soon(scene.subscriber.wait_restored)
        peer = await scene.connect()
        for batch in (names[:512], names[512:1_024], names[1_024:]):
            assert await peer.read() == lines_of(17 + names.index(batch[0]), batch)
            with trio.move_on_after(0):
                pytest.fail(f"{await peer.read()} before the others are confirmed")
            assert len(waiting.child_tasks) == 1
            await scene.confirm()
        assert len(waiting.child_tasks) == 0
        assert all(channel.live for channel in channels)


async def test_what_was_live_is_restored_after_a_break_and_told_of_the_gap() -> None:
    async with open_subscriber() as scene:
        peer = await scene.connect()
        _, heard_by_old = scene.add(b"old")
        await peer.read()
        await scene.confirm()
        scene.say(17, b"1")
        await trio.aclose_forcefully(peer.stream)
        _, heard_by_new = scene.add(b"new")  # finds it broken
        await wait_all_tasks_blocked()
        assert scene.ends == ["the connection broke"]
        gone, _ = scene.add(b"gone")
        scene.subscriber.remove(gone)
        peer = await scene.connect()
        [first, second] = await peer.read()
        assert (first.split()[1], second.split()[1]) == (b"old", b"new")
        await scene.confirm()
        scene.say(int(first.split()[2]), b"2")
        assert (heard_by_old.heard, heard_by_new.heard) == ([b"1", Lost("backplane"), b"2"], [])


async def test_nothing_to_restore_is_restored_at_once() -> None:
    async with open_subscriber() as scene:
        await scene.connect()
        await scene.subscriber.wait_restored()


async def test_loss_at_the_broker_is_told_to_those_who_are_live() -> None:
    async with open_subscriber() as scene:
        peer = await scene.connect()
        _, record = scene.add(b"a")
        await peer.read()
        await scene.confirm()
        _, waiting = scene.add(b"b")
        scene.subscriber.lose(lambda channel: True)
        assert (record.heard, waiting.heard) == ([Lost("backplane")], [])


# -- what goes wrong -------------------------------------------------------------------------------


async def test_refused_newcomer_is_told_and_others_of_the_batch_are_not() -> None:
    async with open_subscriber() as scene, trio.open_nursery() as nursery:
        peer = await scene.connect()
        refused, _ = scene.add(b"a")
        other, _ = scene.add(b"b")
        await peer.read()

        async def wait() -> None:
            with pytest.raises(BackplaneError, match=r"^the broker refuses the subscription: no right$"):
                await refused.wait_live()

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert scene.subscriber.refuse(b"a", "no right")
        assert not scene.subscriber.refuse(b"unknown", "no right")
        await scene.confirm()
        assert (refused.live, other.live, scene.ends) == (False, True, [])


async def test_server_without_a_place_refuses_the_last_of_those_on_their_way() -> None:
    async with open_subscriber() as scene:
        peer = await scene.connect()
        first, second, gone, last = [scene.add(name)[0] for name in (b"1", b"2", b"3", b"4")]
        await peer.read()
        scene.subscriber.remove(gone)
        for _ in range(3):
            assert scene.subscriber.refuse_last("no place")
        await scene.confirm()
        assert [channel.live for channel in (first, second, last)] == [True, False, False]
        assert not scene.subscriber.refuse_last("no place")


async def test_refusal_that_nobody_waits_for_is_for_who_reads_the_log() -> None:
    async with open_subscriber() as scene:
        await scene.connect()
        scene.subscriber.add(NatsChannel(b"advisory"))
        await wait_all_tasks_blocked()
        assert not scene.subscriber.refuse(b"advisory", "no right")
        await scene.confirm()
        assert (scene.subscriber.channels[b"advisory"].live, scene.ends) == (False, [])


async def test_refusal_where_members_sit_is_a_lost_link() -> None:
    async with open_subscriber() as scene:
        peer = await scene.connect()
        scene.add(b"a")
        await peer.read()
        await scene.confirm()
        with pytest.raises(LinkLost, match="the server refuses: not any more"):
            scene.subscriber.refuse(b"a", "not any more")


async def test_payload_beyond_the_bound_is_dropped_and_told_as_a_gap(caplog: pytest.LogCaptureFixture) -> None:
    async with open_subscriber() as scene:
        peer = await scene.connect()
        _, record = scene.add(b"a")
        await peer.read()
        await scene.confirm()
        scene.say(17, b"x" * 100)
        scene.say(17, b"y" * 101)
        assert record.heard == [b"x" * 100, Lost("backplane", 1)]
        assert caplog.messages == ["dropped 101 bytes on subject b'a': more than max_publication_bytes"]
