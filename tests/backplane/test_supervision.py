"""A link lives again when it was lost, with pauses that grow, and tells each reason once; lives are the test's."""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioroom._core.meters import LinkMeters
from trioroom.backplane.pending import Pending, PendingQueue
from trioroom.backplane.supervision import Changes, LinkLost, SupervisedLink
from trioroom.backplane.url import Endpoint
from trioroom.errors import BackplaneUnavailable


class _Queue(PendingQueue[Pending]):
    def _on_their_way(self) -> list[Pending]:
        return []

    async def ask(self) -> None:
        await self._ask(Pending(b"a", trio.current_time()))


class _Link(SupervisedLink):
    """Its lives are given, one for each; then it is up for good."""

    def __init__(self, *lives: Callable[[_Link], Awaitable[None]]) -> None:
        self.queue = _Queue(5.0, 100, 10_000, LinkMeters())
        self.meters = LinkMeters()
        self.changes: list[tuple[bool, str | None]] = []
        self.began: list[float] = []
        self._lives = iter(lives)
        super().__init__("redis", 1.0, self.queue, self.meters, self._note)
        self._endpoint = Endpoint("fake", 1)

    def _note(self) -> None:
        self.changes.append((self.ready, self.failure))

    def _rooms(self) -> int:
        return 3

    async def _live(self) -> None:
        self.began.append(trio.current_time())
        await next(self._lives, _for_good)(self)

    def come_up(self) -> None:
        self._set_ready(True)

    async def wait_restored(self, progress: Callable[[], int], restored: Callable[[], Awaitable[None]]) -> None:
        await self._wait_restored(progress, restored, 2.0)


async def _for_good(link: _Link) -> None:
    link.come_up()
    await trio.sleep_forever()


def _fail(reason: str = "refused", after: float = 0.0, *, up: bool = False) -> Callable[[_Link], Awaitable[None]]:
    async def live(link: _Link) -> None:
        if up:
            link.come_up()
        await trio.sleep(after)
        async with trio.open_nursery():
            raise LinkLost(reason)

    return live


@asynccontextmanager
async def running(link: _Link) -> AsyncIterator[_Link]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        await wait_all_tasks_blocked()
        yield link
        nursery.cancel_scope.cancel()


async def test_pauses_between_lives_grow_up_to_the_setting(autojump_clock: MockClock) -> None:
    async with running(_Link(*[_fail()] * 8)) as link:
        await trio.sleep(30)
        pauses = [later - earlier for earlier, later in itertools.pairwise(link.began)]
        for pause, longest in zip(pauses, (0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0), strict=True):
            assert longest / 2 <= pause <= longest


async def test_long_life_makes_the_next_loss_a_new_one(autojump_clock: MockClock) -> None:
    async with running(_Link(*[_fail()] * 6, _fail(after=60))) as link:
        await trio.sleep(80)
        assert link.began[-1] - link.began[-2] <= 60.05


async def test_each_reason_is_told_once_and_the_first_failure_to_who_opens(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trioroom.backplane")
    lives = [_fail(), _fail(), _fail("no answer"), _fail("no answer"), _fail("gone", 1.0, up=True)]
    async with running(_Link(*lives)) as link:
        await trio.sleep(20)
        assert caplog.messages == [
            "redis: fake:1: no answer; trying again",
            "redis: fake:1 is up, 3 rooms subscribed",
            "redis: fake:1: gone; trying again",
            "redis: fake:1 is up, 3 rooms subscribed",
        ]
        assert link.changes[:1] + link.changes[-3:] == [
            (False, "fake:1: refused"),
            (True, None),
            (False, "fake:1: gone"),
            (True, None),
        ]
        assert (link.meters.outages, link.queue.trouble) == (1, None)


async def test_who_waits_in_vain_hears_why(autojump_clock: MockClock) -> None:
    async with running(_Link(*[_fail()] * 1_000)) as link:
        with pytest.raises(BackplaneUnavailable, match=r"within timeout=5 s \(fake:1: refused\); retry later"):
            await link.queue.ask()


async def test_when_it_is_cancelled_it_is_down_and_what_waits_is_refused() -> None:
    async with trio.open_nursery() as nursery:
        link = _Link()
        async with running(link):
            assert link.ready

            async def ask() -> None:
                with pytest.raises(BackplaneUnavailable, match="is closed; publish while it is open"):
                    await link.queue.ask()

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
        assert not link.ready
        await ask()


async def test_error_that_is_none_of_the_brokers_comes_out() -> None:
    async def live(link: _Link) -> None:
        link.come_up()
        raise ZeroDivisionError

    link = _Link(live)
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        await link.run()
    assert not link.ready


async def test_subscriptions_may_take_long_while_something_comes(autojump_clock: MockClock) -> None:
    link, began = _Link(), trio.current_time()
    await link.wait_restored(lambda: int(trio.current_time() - began), lambda: trio.sleep_until(began + 10.5))
    with pytest.raises(LinkLost, match="subscriptions were not confirmed for 2 s"):
        await link.wait_restored(lambda: 1, trio.sleep_forever)


async def test_changes_wake_who_waits_now() -> None:
    changes, woken = Changes(), list[int]()

    async def wait(number: int) -> None:
        await changes.wait()
        woken.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, 1)
        await wait_all_tasks_blocked()
        changes.tell()
        nursery.start_soon(wait, 2)
        await wait_all_tasks_blocked()
        assert woken == [1]
        changes.tell()
