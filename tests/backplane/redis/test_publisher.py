"""Publications leave in order and in groups, and each publisher gets the answer to its own."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from tests.backplane.redis.fake_server import Peer, bulk, connect, error, integer, push
from tests.backplane.redis.scenes import LOST, open_publisher, payloads
from trioroom._core.meters import LinkMeters
from trioroom.backplane.redis.publisher import Publisher
from trioroom.backplane.redis.resp import LinkLost, RedisConnection
from trioroom.errors import BackplaneUnavailable
from trioroom.testing import cancel_at_step


async def test_lone_publication_leaves_at_once_and_returns_when_it_is_answered() -> None:
    async with open_publisher() as scene:
        peer = await scene.connect()
        await scene.publish(b"a")
        assert await peer.read() == [[b"PUBLISH", b"name", b"a"]]
        assert (scene.results, scene.publisher.queued) == ({b"a": "pending"}, 1)
        await peer.say(integer(0))
        await wait_all_tasks_blocked()
        assert (scene.results, scene.publisher.queued) == ({b"a": "done"}, 0)


async def test_publish_is_a_checkpoint() -> None:
    async with open_publisher() as scene:
        peer = await scene.connect()
        await peer.say()
        with trio.CancelScope() as scope:
            scope.cancel()
            with assert_checkpoints():
                await scene.publisher.publish(b"name", b"a")
        assert scope.cancelled_caught
        assert scene.publisher.queued == 0


async def test_each_publisher_gets_its_own_answer() -> None:
    async with open_publisher() as scene:
        peer = await scene.connect()
        await scene.publish(b"a", b"b", b"c")
        await peer.say(integer(1), push(b"invalidate", b"x"), error("NOPERM no"), integer(0))
        await wait_all_tasks_blocked()
        assert scene.results == {b"a": "done", b"b": "NOPERM no", b"c": "done"}


class _Held:
    """Lets each send wait until the test lets it go."""

    def __init__(self, connection: RedisConnection) -> None:
        self.sends: list[bytes] = []
        self._go = trio.Event()
        connection.send = self.send  # type: ignore[method-assign]  # a stream in memory never makes one wait

    async def send(self, packed: bytes) -> None:
        self.sends.append(packed)
        await self._go.wait()

    def let_go(self) -> None:
        self._go.set()
        self._go = trio.Event()


async def test_what_comes_while_a_group_is_being_sent_leaves_together() -> None:
    async with open_publisher(size=1 << 20) as scene:
        connection, _ = connect()
        held = _Held(connection)
        scene.nursery.start_soon(scene.run, connection)
        await scene.publish(b"a", b"b", b"c")
        assert [send.count(b"PUBLISH") for send in held.sends] == [1]
        held.let_go()
        await wait_all_tasks_blocked()
        assert [send.count(b"PUBLISH") for send in held.sends] == [1, 2]
        large = b"x" * 100_000
        await scene.publish(large + b"1", large + b"2", large + b"3", large + b"4")
        for _ in range(3):
            held.let_go()
            await wait_all_tasks_blocked()
        assert [send.count(b"PUBLISH") for send in held.sends] == [1, 2, 3, 1]  # 256 KiB are enough for one


async def test_cancelled_before_it_was_sent_it_never_is() -> None:
    async with open_publisher() as scene:
        await scene.publish(b"a", b"b", b"c")
        scene.scopes[b"b"].cancel()
        await wait_all_tasks_blocked()
        assert scene.publisher.queued == 2
        assert payloads(await (await scene.connect()).read()) == [b"a", b"c"]


async def test_cancelled_after_it_was_sent_it_leaves_its_place_to_the_answer() -> None:
    async with open_publisher() as scene:
        peer = await scene.connect()
        await scene.publish(b"a", b"b")
        scene.scopes[b"a"].cancel()
        await wait_all_tasks_blocked()
        assert scene.publisher.queued == 2
        await peer.say(error("of a"), integer(1))
        await wait_all_tasks_blocked()
        assert scene.results == {b"a": "cancelled", b"b": "done"}


# -- commands for a server of one incarnation ------------------------------------------------------


async def test_command_gets_the_incarnation_and_its_caller_the_reply() -> None:
    async with open_publisher() as scene:
        peer = await scene.connect(b"first")
        await scene.publish(b"a")
        await scene.call(b"b")
        assert await peer.read() == [[b"PUBLISH", b"name", b"a"], [b"EVALSHA", b"first", b"b"]]
        await peer.say(integer(1), bulk(b"reply"))
        await wait_all_tasks_blocked()
        assert scene.results == {b"a": "done", b"b": "b'reply'"}


async def test_error_reply_to_a_command_is_raised() -> None:
    async with open_publisher() as scene:
        peer = await scene.connect()
        await scene.call(b"a")
        await peer.say(error("NOSCRIPT no"))
        await wait_all_tasks_blocked()
        assert (scene.results, scene.publisher.queued) == ({b"a": "NOSCRIPT no"}, 0)


async def test_what_waits_is_packed_anew_for_another_incarnation_and_counted_so() -> None:
    async with open_publisher() as scene:
        await (await scene.connect(b"1")).close()
        await wait_all_tasks_blocked()
        await scene.call(b"a")
        await scene.publish(b"b")
        waiting = scene.publisher._bytes
        peer = await scene.connect(b"the second")
        assert await peer.read() == [[b"EVALSHA", b"the second", b"a"], [b"PUBLISH", b"name", b"b"]]
        assert scene.publisher._bytes == waiting + len(b"the second") + 1 - len(b"1")  # its length is a digit longer
        await peer.say(integer(7), integer(1))
        await wait_all_tasks_blocked()
        assert (scene.results, scene.publisher._bytes) == ({b"a": "7", b"b": "done"}, 0)


async def test_what_was_sent_is_not_sent_to_another_incarnation() -> None:
    async with open_publisher() as scene:
        peer = await scene.connect(b"1")
        await scene.call(b"a")
        await peer.close()
        await wait_all_tasks_blocked()
        assert scene.results == {b"a": LOST}
        peer = await scene.connect(b"2")
        await scene.call(b"b")
        assert await peer.read() == [[b"EVALSHA", b"2", b"b"]]


# -- bounds ----------------------------------------------------------------------------------------


async def test_publishers_beyond_the_count_wait_and_are_let_in_in_turn() -> None:
    async with open_publisher(count=2) as scene:
        peer = await scene.connect()
        await scene.publish(b"a", b"b", b"c", b"d")
        assert payloads(await peer.read()) == [b"a", b"b"]
        assert scene.publisher.queued == 2
        await peer.say(integer(1))
        await wait_all_tasks_blocked()
        assert payloads(await peer.read()) == [b"c"]
        scene.scopes[b"d"].cancel()
        await peer.say(integer(1), integer(1))
        await wait_all_tasks_blocked()
        assert scene.results == {b"a": "done", b"b": "done", b"c": "done", b"d": "cancelled"}
        assert scene.publisher.queued == 0


async def test_publishers_beyond_the_bytes_wait_and_many_small_ones_come_after_a_large_one() -> None:
    async with open_publisher(size=1_000) as scene:
        peer = await scene.connect()
        large = b"x" * 2_000
        await scene.publish(large, b"a", b"b", b"c")
        assert payloads(await peer.read()) == [large]  # larger than the bound by itself, and goes
        await peer.say(integer(1))
        await wait_all_tasks_blocked()
        assert sorted(payloads(await peer.read())) == [b"a", b"b", b"c"]
        assert scene.publisher.queued == 3


async def test_place_of_a_cancelled_publication_goes_to_the_next() -> None:
    async with open_publisher(count=1) as scene:
        await scene.publish(b"a", b"b", b"c")
        scene.scopes[b"a"].cancel()
        await wait_all_tasks_blocked()
        scene.scopes[b"b"].cancel()
        assert payloads(await (await scene.connect()).read()) == [b"c"]


async def test_no_room_within_timeout_is_told_with_the_setting(autojump_clock: MockClock) -> None:
    async with open_publisher(count=2, timeout=5) as scene:
        await scene.publish(b"a", b"b", b"c")
        await trio.sleep(5.1)
        assert scene.results[b"c"] == (
            "2 publications waited for the broker and left no room for another within timeout=5 s; "
            "publish less, or see max_queued_publications"
        )


async def test_publication_without_an_answer_fails_after_timeout_and_keeps_its_place(autojump_clock: MockClock) -> None:
    async with open_publisher(timeout=5) as scene:
        scene.nursery.start_soon(scene.publisher.expire)
        peer = await scene.connect()
        await scene.publish(b"a")
        await trio.sleep(2)
        await scene.publish(b"b")
        await trio.sleep(3.3)
        unconfirmed = "the broker has not confirmed a publication within timeout=5 s; retry later"
        assert scene.results == {b"a": unconfirmed, b"b": "pending"}
        await peer.say(error("of a, too late"), integer(1))
        await wait_all_tasks_blocked()
        assert (scene.results, scene.publisher.queued) == ({b"a": unconfirmed, b"b": "done"}, 0)


async def test_publication_that_found_no_link_within_timeout_never_goes_out(autojump_clock: MockClock) -> None:
    async with open_publisher(timeout=5) as scene:
        scene.nursery.start_soon(scene.publisher.expire)
        await scene.publish(b"a")
        await trio.sleep(5.3)
        assert scene.publisher.queued == 0
        peer = await scene.connect()
        await scene.publish(b"b")
        assert payloads(await peer.read()) == [b"b"]


async def test_after_timeout_without_a_connection_publishing_fails_at_once(autojump_clock: MockClock) -> None:
    async with open_publisher(timeout=5) as scene:
        scene.nursery.start_soon(scene.publisher.expire)
        peer = await scene.connect()
        await trio.sleep(100)
        await peer.close()
        await wait_all_tasks_blocked()
        await trio.sleep(5)
        await scene.publish(b"a")
        assert scene.results == {b"a": "pending"}  # an outage may be about to end
        await trio.sleep(0.5)
        scene.publisher.trouble = "fake:1: refused"  # as the link has found out
        expected = r"^the broker has been out of reach for 5\.5 s \(fake:1: refused\); retry later$"
        with assert_checkpoints(), pytest.raises(BackplaneUnavailable, match=expected):
            await scene.publisher.publish(b"name", b"b")
        peer = await scene.connect()
        await scene.publish(b"c")
        assert payloads(await peer.read())[-1:] == [b"c"]


# -- the link breaks -------------------------------------------------------------------------------


async def test_what_was_on_its_way_fails_and_what_waited_goes_out_on_the_next_connection() -> None:
    async with open_publisher(count=2) as scene:
        peer = await scene.connect()
        await scene.publish(b"a", b"b", b"c")
        await peer.close()
        await wait_all_tasks_blocked()
        assert scene.results == {b"a": LOST, b"b": LOST, b"c": "pending"}
        assert payloads(await (await scene.connect()).read()) == [b"c"]


async def test_answer_to_nothing_is_a_lost_link() -> None:
    connection, peer = connect()
    await peer.say(error("ERR max number of clients reached"))
    publisher = Publisher(b"PUBLISH", 1, 1, 1, LinkMeters())
    with pytest.RaisesGroup(pytest.RaisesExc(LinkLost, match=r"max number of clients.*nobody asked")):
        await publisher.run(connection)


async def test_who_waits_and_who_comes_later_is_told_when_the_link_is_given_up() -> None:
    async with open_publisher(count=2) as scene:
        await scene.publish(b"a", b"b", b"c")
        scene.publisher.give_up(partial(BackplaneUnavailable, "moved"))
        scene.publisher.give_up(partial(BackplaneUnavailable, "again"))
        await wait_all_tasks_blocked()
        await scene.publish(b"d")
        assert scene.results == dict.fromkeys([b"a", b"b", b"c", b"d"], "moved")
        assert scene.publisher.queued == 0


async def test_who_waited_for_room_behind_what_is_on_its_way_is_told_too_when_the_link_is_given_up() -> None:
    async with open_publisher(count=1) as scene:
        await scene.connect()
        await scene.publish(b"a", b"b")
        scene.publisher.give_up(partial(BackplaneUnavailable, "moved"))
        await wait_all_tasks_blocked()
        assert scene.results == {b"a": "pending", b"b": "moved"}


async def test_publish_can_be_cancelled_at_any_step_and_leaves_nothing() -> None:
    async def answer(peer: Peer) -> None:
        while commands := await peer.read():
            await peer.say(*[integer(1)] * len(commands))

    for step in itertools.count():
        async with open_publisher(count=1) as scene:
            peer = await scene.connect()
            scene.nursery.start_soon(answer, peer)
            scene.nursery.start_soon(scene._publish, b"before")
            with cancel_at_step(step) as scope:
                await scene.publisher.publish(b"name", b"a")
            await wait_all_tasks_blocked()
            assert (scene.publisher.queued, scene.publisher._bytes) == (0, 0), f"cancelled at step {step}"
            assert scene.results in ({b"before": "done"}, {})
        if not scope.cancelled_caught:
            break
    assert step > 3
