"""Requests leave in order and in groups, within bounds, and each asker gets the answer to its own."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.backplane.nats.scenes import NOBODY, answer, open_requests
from trioroom.backplane.nats.protocol import Message
from trioroom.backplane.nats.requests import NoResponders
from trioroom.errors import BackplaneError, BackplaneUnavailable
from trioroom.testing import cancel_at_step

LOST = "the link to the broker broke while a publication was on its way; it may have gone out or not"


async def test_each_asker_gets_the_answer_to_its_own_in_any_order() -> None:
    async with open_requests() as scene:
        peer = await scene.connect()
        await scene.ask(b"a", b"b", b"c")
        inboxes = await peer.published()
        while len(inboxes) < 3:
            inboxes |= await peer.published()
        scene.requests.take([answer(inboxes[payload], payload.upper()) for payload in (b"c", b"a")])
        await wait_all_tasks_blocked()
        assert scene.results == {b"a": "A", b"b": "pending", b"c": "C"}
        scene.requests.take([answer(inboxes[b"a"], b"again"), answer(b"_INBOX.other.1", b"no"), answer(b"", b"no")])
        scene.requests.take([answer(inboxes[b"b"], b"B")])
        await wait_all_tasks_blocked()
        assert (scene.results[b"b"], scene.requests.queued) == ("B", 0)


async def test_header_with_a_line_break_is_refused() -> None:
    async with open_requests() as scene:
        with pytest.raises(ValueError, match="line break"):
            await scene.requests.ask("s", headers={"a": "b\r\nc: d"})


async def test_what_waits_leaves_in_one_group_when_there_is_a_connection() -> None:
    async with open_requests() as scene:
        await scene.ask(b"a", b"b")
        peer = await scene.connect()
        assert list(await peer.published()) == [b"a", b"b"]


async def test_nobody_there_is_an_error_of_its_own_and_no_sign_of_life() -> None:
    async with open_requests() as scene, trio.open_nursery() as nursery:
        peer = await scene.connect()

        async def ask() -> None:
            with pytest.raises(NoResponders, match="nobody at the broker answers on 's'"):
                await scene.requests.ask("s", b"a")

        nursery.start_soon(ask)
        inboxes = await peer.published()
        scene.requests.take([answer(inboxes[b"a"], b"", NOBODY)])
        assert scene.requests.answered == 0


async def test_what_nobody_serves_is_asked_again_until_somebody_does(autojump_clock: MockClock) -> None:
    async with open_requests(timeout=5.0) as scene, trio.open_nursery() as nursery:
        peer = await scene.connect()
        times: list[float] = []

        async def serve(count: int) -> None:
            for left in range(count, -1, -1):
                inboxes = await peer.published()
                times.append(trio.current_time())
                scene.requests.take([answer(inboxes[b"a"], b"ok", NOBODY if left else b"")])

        nursery.start_soon(serve, 5)
        assert (await scene.requests.ask_served("s", b"a")).payload == b"ok"
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert pauses == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.3])
        nursery.start_soon(serve, 10_000)
        before = trio.current_time()
        with pytest.raises(NoResponders):
            await scene.requests.ask_served("s", b"a")
        assert trio.current_time() - before <= 5.0
        nursery.cancel_scope.cancel()


async def test_many_replies_come_up_to_the_last() -> None:
    async with open_requests() as scene, trio.open_nursery() as nursery:
        peer = await scene.connect()
        got: list[Message] = []

        async def ask() -> None:
            got.extend(await scene.requests.ask_many("s", b"a", last=lambda reply: reply.status == 204))

        nursery.start_soon(ask)
        [inbox] = (await peer.published()).values()
        end = answer(inbox, b"", b"NATS/1.0 204 EOB\r\n\r\n")
        scene.requests.take([answer(inbox, b"1"), answer(inbox, b"2")])
        scene.requests.take([end, answer(inbox, b"too late")])
        await wait_all_tasks_blocked()
        assert [reply.payload for reply in got] == [b"1", b"2", b""]


# -- bounds ----------------------------------------------------------------------------------------


async def test_what_is_not_answered_in_time_fails_and_its_answer_is_nobody_s(autojump_clock: MockClock) -> None:
    async with open_requests(timeout=2.0) as scene:
        scene.nursery.start_soon(scene.requests.expire)
        peer = await scene.connect()
        await scene.ask(b"a")
        [inbox] = (await peer.published()).values()
        await trio.sleep(2.2)
        assert "retry later" in scene.results[b"a"]
        scene.requests.take([answer(inbox)])
        assert scene.requests.queued == 0


async def test_flood_of_replies_is_told_before_it_fills_the_memory() -> None:
    async with open_requests() as scene, trio.open_nursery() as nursery:
        peer = await scene.connect()

        async def ask() -> None:
            with pytest.raises(BackplaneUnavailable, match=r"was answered with .* bytes"):
                await scene.requests.ask_many("s", b"a", last=lambda reply: False)

        nursery.start_soon(ask)
        [inbox] = (await peer.published()).values()
        payload = bytes(1 << 20)
        while nursery.child_tasks:
            scene.requests.take([answer(inbox, payload)] * 10)
            await wait_all_tasks_blocked()
        assert scene.requests.queued == 0


async def test_what_is_larger_than_the_server_takes_is_refused_before_it_is_sent() -> None:
    async with open_requests() as scene:
        await scene.ask(b"x" * 11, b"y" * 10)
        peer = await scene.connect(max_payload=10)
        assert list(await peer.published()) == [b"y" * 10]
        assert scene.results[b"x" * 11].startswith("11 bytes are more than the broker takes; raise max_payload=10")
        await scene.ask(b"z" * 11)
        assert scene.requests._meters.batches.count == 1  # of nothing there is no group


# -- what goes wrong -------------------------------------------------------------------------------


async def test_broken_link_fails_what_was_on_its_way_and_keeps_what_was_not() -> None:
    async with open_requests() as scene:
        peer = await scene.connect()
        await scene.ask(b"a")
        await peer.published()
        await trio.aclose_forcefully(peer.stream)
        await scene.ask(b"b")  # the write that finds it broken takes this along
        assert scene.results == {b"a": LOST, b"b": LOST}
        await scene.ask(b"c")
        peer = await scene.connect()
        assert list(await peer.published()) == [b"c"]


async def test_asking_can_be_cancelled_at_any_moment() -> None:
    for step in range(10):
        async with open_requests(count=1) as scene:
            peer = await scene.connect()
            with cancel_at_step(step) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(scene.requests.ask, "s", b"a")
                    nursery.start_soon(scene.requests.ask, "s", b"b")
                    for _ in range(2):
                        [inbox] = (await peer.published()).values()
                        scene.requests.take([answer(inbox)])
            assert scene.requests.queued == 0
            if not scope.cancelled_caught:
                break


async def test_what_is_not_permitted_fails_the_oldest_that_asked_for_it() -> None:
    async with open_requests() as scene:
        peer = await scene.connect()
        await scene.ask(b"a")
        await peer.published()
        error = partial(BackplaneError, "not permitted")
        assert not scene.requests.refuse(b"other", error)
        assert scene.requests.refuse(b"s", error)
        await wait_all_tasks_blocked()
        assert scene.results == {b"a": "not permitted"}
        assert not scene.requests.refuse(b"s", error)
