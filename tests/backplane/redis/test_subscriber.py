"""Channels are live from their own confirmation on, whatever comes in between, and no room holds up another."""

from __future__ import annotations

from collections import deque

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from tests.backplane.redis.fake_server import Command, array, bulk, error, integer, message, push
from tests.backplane.redis.scenes import Record, open_subscriber, say
from trioroom.backplane.base import Delivery, Lost
from trioroom.backplane.channel import Channel
from trioroom.backplane.redis.subscriber import CLASSIC, SHARDED, Words
from trioroom.errors import BackplaneError

WORDS = pytest.mark.parametrize("words", [CLASSIC, SHARDED], ids=["classic", "sharded"])


# -- what is wanted --------------------------------------------------------------------------------


@WORDS
async def test_channel_is_live_when_confirmed_and_hears_what_comes_from_then_on(words: Words) -> None:
    async with open_subscriber(words) as scene:
        peer = await scene.connect()
        channel, record = scene.add(b"a")
        await wait_all_tasks_blocked()
        assert await peer.read() == [[words.subscribe, b"a"]]
        await say(peer, message(b"a", b"before", words.message))
        assert not channel.live
        await say(peer, scene.confirmed(b"a"), message(b"a", b"1", words.message), message(b"b", b"no", words.message))
        assert channel.live
        scene.subscriber.remove(channel)
        await say(peer, message(b"a", b"after", words.message))
        assert await peer.read() == [[words.unsubscribe, b"a"]]
        assert record.heard == [b"1"]
        await say(peer, push(words.unsubscribe.lower(), b"a"))
        assert (scene.subscriber.channels, scene.ends) == ({}, [])


async def test_replies_of_resp2_do_as_well() -> None:
    async with open_subscriber() as scene:
        peer = await scene.connect()
        channel, record = scene.add(b"a")
        await say(peer, array(bulk(b"subscribe"), bulk(b"a"), integer(1)))
        await say(peer, array(bulk(b"message"), bulk(b"a"), bulk(b"1")))
        assert (channel.live, record.heard) == (True, [b"1"])


async def test_commands_name_at_most_512_channels_and_2048_are_unconfirmed_at_most() -> None:
    async with open_subscriber() as scene:
        names = [b"%d" % number for number in range(3_000)]
        for name in names:
            scene.add(name)
        peer = await scene.connect()
        sent = await peer.read()
        assert [len(command) - 1 for command in sent] == [512] * 4
        await say(peer, scene.confirmed(*names[:511]))
        with trio.move_on_after(0):
            pytest.fail(f"{await peer.read()} with room for less than a batch")
        await say(peer, scene.confirmed(names[511]))
        sent += await peer.read()
        assert len(sent) == 5
        await say(peer, scene.confirmed(*names[512:2_560]))
        sent += await peer.read()
        assert [name for command in sent for name in command[1:]] == names
        await say(peer, scene.confirmed(*names[2_560:]))
        assert all(channel.live for channel in scene.subscriber.channels.values())


async def test_sharded_commands_name_one_channel_each_and_leave_together() -> None:
    async with open_subscriber(SHARDED) as scene:
        for number in range(600):
            scene.add(b"%d" % number)
        peer = await scene.connect()
        assert await peer.read() == [[b"SSUBSCRIBE", b"%d" % number] for number in range(600)]


async def test_restored_is_told_when_all_that_was_wanted_before_is_confirmed() -> None:
    async with open_subscriber() as scene, trio.open_nursery() as waiting:
        waiting.start_soon(scene.subscriber.wait_restored)
        gone, _ = scene.add(b"a")
        scene.add(b"b")
        peer = await scene.connect()
        later, _ = scene.add(b"later")
        scene.subscriber.remove(gone)
        await say(peer, scene.confirmed(b"a"))
        assert len(waiting.child_tasks) == 1
        await say(peer, scene.confirmed(b"b"))
        assert len(waiting.child_tasks) == 0
        assert not later.live


async def test_nothing_to_restore_is_restored_at_once_and_anew_on_each_connection() -> None:
    async with open_subscriber() as scene, trio.open_nursery() as waiting:
        peer = await scene.connect()
        await scene.subscriber.wait_restored()
        scene.add(b"a")
        await peer.close()
        await wait_all_tasks_blocked()
        waiting.start_soon(scene.subscriber.wait_restored)
        peer = await scene.connect()
        assert len(waiting.child_tasks) == 1
        await say(peer, scene.confirmed(b"a"))


async def test_what_was_live_is_restored_after_a_break_and_told_of_the_gap() -> None:
    async with open_subscriber() as scene:
        peer = await scene.connect()
        old, heard_by_old = scene.add(b"old")
        await say(peer, scene.confirmed(b"old"), message(b"old", b"1"))
        await peer.close()
        await wait_all_tasks_blocked()
        assert scene.ends == ["the server closed the connection"]
        assert old.interrupted
        _, heard_by_new = scene.add(b"new")
        gone, _ = scene.add(b"gone")
        scene.subscriber.remove(gone)
        peer = await scene.connect()
        assert await peer.read() == [[b"SUBSCRIBE", b"old", b"new"]]
        await say(peer, scene.confirmed(b"old", b"new"), message(b"old", b"2"))
        assert (heard_by_old.heard, heard_by_new.heard) == ([b"1", Lost("backplane"), b"2"], [])


# -- what goes wrong -------------------------------------------------------------------------------


async def test_payload_beyond_the_bound_is_dropped_and_told_as_a_gap(caplog: pytest.LogCaptureFixture) -> None:
    async with open_subscriber() as scene:
        peer = await scene.connect()
        _, record = scene.add(b"a")
        await say(peer, scene.confirmed(b"a"), message(b"a", b"x" * 100), message(b"a", b"y" * 101))
        assert record.heard == [b"x" * 100, Lost("backplane", 1)]
        assert caplog.messages == ["dropped 101 bytes on channel b'a': more than max_publication_bytes"]


async def test_refused_newcomers_are_told_and_others_of_other_commands_are_not() -> None:
    async with open_subscriber() as scene, trio.open_nursery() as nursery:
        peer = await scene.connect()
        refused, _ = scene.add(b"a")

        async def wait() -> None:
            with pytest.raises(BackplaneError, match=r"^the broker refuses SUBSCRIBE: NOPERM no right$"):
                await refused.wait_live()

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        other, _ = scene.add(b"b")
        await say(peer, error("NOPERM no right"), scene.confirmed(b"b"))
        assert (refused.live, other.live, scene.ends) == (False, True, [])


async def test_refusal_of_what_was_left_meanwhile_concerns_nobody() -> None:
    async with open_subscriber() as scene:
        peer = await scene.connect()
        gone, _ = scene.add(b"a")
        await wait_all_tasks_blocked()
        scene.subscriber.remove(gone)
        again, _ = scene.add(b"a")
        await say(peer, error("NOPERM no"), error("NOPERM no"))
        assert again.refusal is None
        await say(peer, scene.confirmed(b"a"))
        assert (again.live, scene.ends) == (True, [])


async def test_refusal_where_members_sit_is_a_lost_link() -> None:
    async with open_subscriber() as scene:
        peer = await scene.connect()
        scene.add(b"a")
        await say(peer, scene.confirmed(b"a"))
        await peer.close()
        await wait_all_tasks_blocked()
        peer = await scene.connect()
        await say(peer, error("NOPERM not any more"))
        assert scene.ends[1:] == ["the server refuses SUBSCRIBE: NOPERM not any more"]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (push(b"subscribe", b"b"), "the server confirmed SUBSCRIBE of b'b', which nobody asked for"),
        (push(b"psubscribe", b"a"), "the server confirmed PSUBSCRIBE of b'a', which nobody asked for"),
        (push(b"unsubscribe", b"a"), "the server confirmed UNSUBSCRIBE of b'a', which nobody asked for"),
        (error("ERR what"), "the server answered what nobody asked: ERR what"),
        (integer(7), "the server sent 7, which is no part of Pub/Sub"),
        (array(bulk(b"pong"), bulk(b"")), "the server sent [b'pong', b''], which is no part of Pub/Sub"),
    ],
    ids=["subscribed", "psubscribed", "unsubscribed", "error", "number", "pong"],
)
async def test_what_nobody_asked_for_is_a_lost_link(reply: bytes, reason: str) -> None:
    async with open_subscriber() as scene:
        peer = await scene.connect()
        channel, _ = scene.add(b"a")
        await say(peer, scene.confirmed(b"a"), reply)
        assert not channel.live
        [end] = scene.ends
        assert reason in end


# -- a cluster -------------------------------------------------------------------------------------


async def test_channel_whose_slot_has_moved_is_adrift_until_it_is_added_again() -> None:
    async with open_subscriber(SHARDED) as scene:
        peer = await scene.connect()
        channel, record = scene.add(b"a")
        await say(peer, scene.confirmed(b"a"), push(b"sunsubscribe", b"a"), push(b"sunsubscribe", b"unknown"))
        assert (channel.live, scene.subscriber.adrift, scene.moved) == (False, {channel}, 1)
        scene.subscriber.add(channel)
        assert scene.subscriber.adrift == set()
        await say(peer, scene.confirmed(b"a"))
        assert (channel.live, record.heard, scene.ends) == (True, [Lost("backplane")], [])


async def test_redirected_subscription_is_adrift_and_an_older_confirmation_does_not_count() -> None:
    async with open_subscriber(SHARDED) as scene:
        peer = await scene.connect()
        channel, _ = scene.add(b"a")
        for moved, reply in enumerate(("MOVED 1 h:1", "CLUSTERDOWN x", "TRYAGAIN x", "ASK 1 h:1"), 1):
            await say(peer, error(reply))
            assert (scene.subscriber.adrift, scene.moved) == ({channel}, moved)
            scene.subscriber.add(channel)
            await wait_all_tasks_blocked()
        scene.subscriber.add(channel)  # once more, while the one before is on its way
        await say(peer, scene.confirmed(b"a"))
        assert not channel.live
        await say(peer, scene.confirmed(b"a"))
        assert channel.live
        scene.subscriber.remove(channel)
        assert not channel.live


async def test_channel_that_was_adrift_is_restored_with_the_others_on_the_next_connection() -> None:
    async with open_subscriber(SHARDED) as scene:
        peer = await scene.connect()
        channel, _ = scene.add(b"a")
        await say(peer, error("CLUSTERDOWN Hash slot not served"))
        await peer.close()
        await wait_all_tasks_blocked()
        peer = await scene.connect()
        assert await peer.read() == [[b"SSUBSCRIBE", b"a"]]
        await say(peer, scene.confirmed(b"a"))
        assert (channel.live, scene.subscriber.adrift) == (True, set())


async def test_channel_that_is_left_is_not_adrift_any_more() -> None:
    async with open_subscriber(SHARDED) as scene:
        peer = await scene.connect()
        channel, _ = scene.add(b"a")
        await say(peer, error("MOVED 1 h:1"))
        scene.subscriber.remove(channel)
        assert scene.subscriber.adrift == set()


# -- leaving and joining, in any order with what the server does --------------------------------------


class _Model:
    """A server with an outbox; its subscriptions are told apart by how often the name was subscribed before."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self.commands: deque[Command] = deque()
        self.outbox: list[tuple[bytes, bytes, int, bytes]] = []
        """Encoded; and of a publication the name, the number of the subscription it belongs to, and the payload."""
        self._count = {b"a": 0, b"b": 0}
        self._subscribed: dict[bytes, int] = {}
        self._published = 0

    def obey(self) -> None:
        word, *names = self.commands.popleft()
        for name in names:
            if word == self._words.subscribe:
                self._count[name] += 1
                self._subscribed[name] = self._count[name]
            else:
                del self._subscribed[name]
            self.outbox.append((push(word.lower(), name), name, 0, b""))

    def publish(self, name: bytes) -> None:
        self._published += 1
        if name in self._subscribed:
            payload = b"%d" % self._published
            encoded = message(name, payload, self._words.message)
            self.outbox.append((encoded, name, self._subscribed[name], payload))


STEPS = st.lists(st.tuples(st.sampled_from(["toggle", "obey", "publish", "flush"]), st.sampled_from([b"a", b"b"])))


@pytest.mark.untraced
@WORDS
@given(STEPS)
@example([("toggle", b"a"), ("obey", b"a"), ("publish", b"a")] + [("toggle", b"a")] * 2 + [("flush", b"a")] * 2)
@settings(max_examples=settings().max_examples * 2)
def test_each_subscription_hears_exactly_what_follows_its_own_confirmation(
    words: Words, steps: list[tuple[str, bytes]]
) -> None:
    async def main() -> None:
        async with open_subscriber(words) as scene:
            peer, model = await scene.connect(), _Model(words)
            present: dict[bytes, tuple[Channel, Record]] = {}
            joins = {b"a": 0, b"b": 0}
            expected: list[tuple[Record, list[Delivery]]] = []
            heard_by: dict[bytes, list[Delivery]] = {}

            async def read() -> None:
                while commands := await peer.read():
                    model.commands.extend(commands)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                for step, name in [*steps, *[("obey", b"a")] * len(steps), ("flush", b"a")]:
                    if step == "toggle" and name in present:
                        scene.subscriber.remove(present.pop(name)[0])
                    elif step == "toggle":
                        joins[name] += 1
                        present[name] = scene.add(name)
                        expected.append((present[name][1], []))
                        heard_by[name] = expected[-1][1]
                    elif step == "publish":
                        model.publish(name)
                    elif step == "obey" and model.commands:
                        model.obey()
                    elif step == "flush":
                        for _, about, number, payload in model.outbox:
                            if number and about in present and number == joins[about]:
                                heard_by[about].append(payload)
                        await peer.say(*[encoded for encoded, *_ in model.outbox])
                        model.outbox.clear()
                    await wait_all_tasks_blocked()
                    for record, heard in expected:
                        assert record.heard == heard
                assert all(channel.live for channel, _ in present.values())
                assert scene.ends == []
                nursery.cancel_scope.cancel()

    trio.run(main)
