"""Publications leave in order and in groups, and each publisher gets the answer to its own."""

from __future__ import annotations

import itertools

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from tests.backplane.redis.fake_server import Peer, bulk, connect, error, integer, push
from tests.backplane.redis.scenes import LOST, open_publisher, payloads
from trioroom._core.meters import LinkMeters
from trioroom.backplane.redis.publisher import Publisher
from trioroom.backplane.redis.resp import RedisConnection
from trioroom.backplane.supervision import LinkLost
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
