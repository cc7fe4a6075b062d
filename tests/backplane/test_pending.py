"""What was asked waits within bounds and for so long, and leaves in groups, in order."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import outcome
import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from trioroom._core.meters import LinkMeters
from trioroom.backplane.pending import Pending, PendingQueue
from trioroom.errors import BackplaneUnavailable


class _Queue(PendingQueue[Pending]):
    """Sends nothing; the test plays the broker, and whoever asks."""

    def __init__(self, timeout: float, count: int, size: int, nursery: trio.Nursery) -> None:
        super().__init__(timeout, count, size, LinkMeters())
        self.sent: list[Pending] = []
        self.results: dict[bytes, str] = {}
        self.scopes: dict[bytes, trio.CancelScope] = {}
        self.nursery = nursery

    def _on_their_way(self) -> list[Pending]:
        return self.sent

    async def ask_for(self, *questions: bytes) -> None:
        """Each by a task of its own, as far as it gets before the next one starts."""
        for question in questions:
            self.nursery.start_soon(self.record, question)
            await wait_all_tasks_blocked()

    async def record(self, question: bytes, since: float | None = None) -> None:
        self.results[question] = "cancelled"
        with trio.CancelScope() as self.scopes[question]:
            self.results[question] = "pending"
            try:
                self.results[question] = await self._ask(
                    Pending(question, trio.current_time() if since is None else since)
                )
            except BackplaneUnavailable as exc:
                self.results[question] = str(exc)
            return
        self.results[question] = "cancelled"

    async def cancel(self, question: bytes) -> None:
        self.scopes[question].cancel()
        await wait_all_tasks_blocked()

    async def send(self) -> list[bytes]:
        """One group."""
        self._down_since = None
        group = await self._next_group()
        self.sent += group
        return [pending.packed for pending in group]

    async def answer(self) -> None:
        """The oldest."""
        self._resolve(self.sent.pop(0), outcome.Value("answered"))
        await wait_all_tasks_blocked()

    async def lose(self) -> None:
        sent, self.sent = self.sent, []
        self._lose(sent)
        await wait_all_tasks_blocked()

    @property
    def empty(self) -> bool:
        return (self.queued, self._bytes) == (0, 0)


@asynccontextmanager
async def open_queue(timeout: float = math.inf, count: int = 100, size: int = 10_000) -> AsyncIterator[_Queue]:
    async with trio.open_nursery() as nursery:
        queue = _Queue(timeout, count, size, nursery)
        nursery.start_soon(queue.expire)
        yield queue
        nursery.cancel_scope.cancel()


async def test_what_waits_leaves_together_and_in_order() -> None:
    async with open_queue() as queue:
        await queue.ask_for(b"a", b"b", b"c")
        assert await queue.send() == [b"a", b"b", b"c"]
        await queue.answer()
        assert queue.results == {b"a": "answered", b"b": "pending", b"c": "pending"}
        await queue.answer()
        await queue.answer()
        assert queue.empty


async def test_who_sends_waits_until_something_waits_and_may_be_cancelled() -> None:
    async with open_queue() as queue:
        with trio.move_on_after(0):
            await queue.send()
        groups: list[list[bytes]] = []

        async def send() -> None:
            groups.append(await queue.send())

        queue.nursery.start_soon(send)
        await queue.ask_for(b"a")
        assert groups == [[b"a"]]


async def test_there_is_no_group_of_nobody() -> None:
    async with open_queue() as queue:
        groups: list[list[bytes]] = []

        async def send() -> None:
            groups.append(await queue.send())

        queue.nursery.start_soon(send)
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()  # so that it wakes who sends, and is gone when that runs
            await queue._ask(Pending(b"a", trio.current_time()))
        await wait_all_tasks_blocked()
        assert (groups, queue.empty) == ([], True)
        await queue.ask_for(b"b")
        assert groups == [[b"b"]]


async def test_group_has_bounded_bytes() -> None:
    async with open_queue(size=1 << 20) as queue:
        large = [b"%d" % number + bytes(100_000) for number in range(4)]
        await queue.ask_for(*large)
        assert [await queue.send(), await queue.send()] == [large[:3], large[3:]]


async def test_cancelled_before_it_was_sent_it_never_is() -> None:
    async with open_queue() as queue:
        await queue.ask_for(b"a", b"b")
        await queue.cancel(b"a")
        assert (await queue.send(), queue.queued) == ([b"b"], 1)


# -- bounds ----------------------------------------------------------------------------------------


async def test_who_comes_beyond_the_count_waits_and_is_let_in_in_turn() -> None:
    async with open_queue(count=2) as queue:
        await queue.ask_for(b"a", b"b", b"c", b"d")
        assert (await queue.send(), queue.queued) == ([b"a", b"b"], 2)
        await queue.answer()
        assert await queue.send() == [b"c"]
        await queue.cancel(b"d")
        await queue.answer()
        await queue.answer()
        assert queue.results == {b"a": "answered", b"b": "answered", b"c": "answered", b"d": "cancelled"}
        assert queue.empty


@pytest.mark.parametrize("size", [1_000, 2_000])
async def test_who_comes_beyond_the_bytes_waits_and_many_small_ones_come_after_a_large_one(size: int) -> None:
    async with open_queue(size=1_000) as queue:
        large = bytes(size)  # the bound by itself or more, and goes
        await queue.ask_for(large, b"a", b"b", b"c")
        assert await queue.send() == [large]
        await queue.answer()
        assert sorted(await queue.send()) == [b"a", b"b", b"c"]


async def test_place_of_who_was_cancelled_goes_to_the_next() -> None:
    async with open_queue(count=1) as queue:
        await queue.ask_for(b"a", b"b", b"c")
        await queue.cancel(b"a")
        await queue.cancel(b"b")
        assert await queue.send() == [b"c"]


# -- deadlines -------------------------------------------------------------------------------------


async def test_no_room_within_timeout_is_told_with_the_setting(autojump_clock: MockClock) -> None:
    async with open_queue(timeout=5, count=2) as queue:
        await queue.ask_for(b"a", b"b")
        await trio.sleep(1)
        await queue.ask_for(b"c")
        await queue.send()
        await trio.sleep(3.9)
        assert queue.results[b"c"] == "pending"
        await trio.sleep(1.2)
        assert queue.results[b"c"] == (
            "2 publications waited for the broker and left no room for another within timeout=5 s; "
            "publish less, or see max_queued_publications"
        )


async def test_what_was_not_sent_in_time_fails_and_never_is(autojump_clock: MockClock) -> None:
    async with open_queue(timeout=5) as queue:
        await queue.ask_for(b"a")
        await trio.sleep(5.3)
        assert queue.results == {b"a": "the broker has not confirmed a publication within timeout=5 s; retry later"}
        assert queue.empty
        await queue.lose()  # there is a connection again
        await queue.ask_for(b"b")
        assert await queue.send() == [b"b"]


async def test_what_was_sent_and_not_answered_in_time_fails_once(autojump_clock: MockClock) -> None:
    async with open_queue(timeout=5) as queue:
        await queue.ask_for(b"a")
        await queue.send()
        await trio.sleep(5.3)
        assert "retry later" in queue.results[b"a"]
        await trio.sleep(5)
        await queue.answer()
        assert "retry later" in queue.results[b"a"]


async def test_who_waited_for_room_waits_no_longer_behind_who_came_later(autojump_clock: MockClock) -> None:
    async with open_queue(timeout=2) as queue:
        began = trio.current_time()
        await trio.sleep(1.5)
        await queue.ask_for(b"later")
        queue.nursery.start_soon(queue.record, b"first", began)  # as when it has waited all the time
        await trio.sleep(0.7)
        assert "retry later" in queue.results[b"first"]
        assert queue.results[b"later"] == "pending"


async def test_long_outage_refuses_at_once_with_its_reason(autojump_clock: MockClock) -> None:
    async with open_queue(timeout=5) as queue:
        await queue.ask_for(b"a")
        await queue.send()
        await trio.sleep(100)
        await queue.lose()
        await trio.sleep(5)
        await queue.ask_for(b"b")
        assert queue.results[b"b"] == "pending"  # an outage may be about to end
        await trio.sleep(0.5)
        queue.trouble = "fake:1: refused"  # as the link has found out
        expected = r"^the broker has been out of reach for 5\.5 s \(fake:1: refused\); retry later$"
        with assert_checkpoints(), pytest.raises(BackplaneUnavailable, match=expected):
            await queue._ask(Pending(b"c", trio.current_time()))


async def test_what_never_had_a_connection_refuses_after_timeout_too(autojump_clock: MockClock) -> None:
    async with open_queue(timeout=2) as queue:
        await trio.sleep(3)
        await queue.ask_for(b"a")
        assert queue.results == {b"a": "the broker has been out of reach for 3.0 s; retry later"}


# -- the end ---------------------------------------------------------------------------------------


async def test_what_was_on_its_way_fails_with_the_link_and_what_waited_stays() -> None:
    async with open_queue(count=2) as queue:
        await queue.ask_for(b"a", b"b", b"c")
        await queue.send()
        await queue.lose()
        lost = "the link to the broker broke while a publication was on its way; it may have gone out or not"
        assert queue.results == {b"a": lost, b"b": lost, b"c": "pending"}
        assert await queue.send() == [b"c"]


async def test_who_waits_and_who_comes_later_is_told_when_the_link_is_given_up() -> None:
    async with open_queue(count=2) as queue:
        await queue.ask_for(b"a", b"b", b"c")
        queue.give_up(partial(BackplaneUnavailable, "moved"))
        queue.give_up(partial(BackplaneUnavailable, "again"))
        await wait_all_tasks_blocked()
        await queue.ask_for(b"d")
        assert queue.results == dict.fromkeys([b"a", b"b", b"c", b"d"], "moved")
        assert queue.empty
        with assert_checkpoints(), pytest.raises(BackplaneUnavailable):
            await queue._ask(Pending(b"e", trio.current_time()))


async def test_who_waited_for_room_behind_what_is_on_its_way_is_told_too_when_the_link_is_given_up() -> None:
    async with open_queue(count=1) as queue:
        await queue.ask_for(b"a", b"b")
        await queue.send()
        queue.give_up(partial(BackplaneUnavailable, "moved"))
        await wait_all_tasks_blocked()
        assert queue.results == {b"a": "pending", b"b": "moved"}
