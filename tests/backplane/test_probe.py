"""A link is ready while its probes come round, and is given up when they do not; by a fake clock."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from trioroom._core.meters import LinkMeters
from trioroom.backplane.base import Lost
from trioroom.backplane.probe import Probe

INTERVAL, TIMEOUT = 1.0, 2.0
EPSILON = 0.01


class Scene:
    """A broker that passes on after a while, and what the probe tells."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.meters = LinkMeters()
        self.probe = Probe(INTERVAL, TIMEOUT, self.meters)
        self.latency = 0.0
        self.sent = 0
        self.traffic = [0, 0]
        self.told: list[tuple[float, bool]] = []
        self.end: tuple[float, float] | None = None  # when, and how late it was
        self._nursery = nursery

    async def run(self) -> None:
        late = await self.probe.keep_probing(self._send, self._tell, lambda: tuple(self.traffic))
        self.end = trio.current_time(), late

    async def _send(self, number: bytes) -> None:
        self.sent += 1
        self._nursery.start_soon(self._pass_on, number)

    async def _pass_on(self, number: bytes) -> None:
        await trio.sleep(self.latency)
        self.probe.offer(number)

    def _tell(self, ready: bool) -> None:
        if not self.told or self.told[-1][1] != ready:
            self.told.append((trio.current_time(), ready))

    async def talk(self, *kinds: int) -> None:
        """So that others' publications come, of these kinds."""
        while True:
            for kind in kinds:
                self.traffic[kind] += 1
            await trio.sleep(0.1)

    def ended_after(self, begin: float) -> float:
        assert self.end is not None
        return self.end[0] - begin


@asynccontextmanager
async def open_scene() -> AsyncIterator[Scene]:
    async with trio.open_nursery() as nursery:
        scene = Scene(nursery)
        nursery.start_soon(scene.run)
        await trio.sleep(10.5)
        yield scene
        nursery.cancel_scope.cancel()


async def test_ready_from_the_first_probe_and_one_goes_out_each_interval(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        assert (scene.told, scene.sent) == ([(0.0, True)], 11)
        await trio.sleep(100)
        assert (len(scene.told), scene.sent, scene.meters.round_trips.count) == (1, 111, 111)


@pytest.mark.parametrize("offset", [0.0, 0.3, 0.499, 0.6])
async def test_silence_is_noticed_within_its_bound(offset: float, autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        await trio.sleep(offset)
        scene.latency, begin = math.inf, trio.current_time()
        await trio.sleep(4)
        assert not scene.told[-1][1]
        assert scene.told[-1][0] - begin <= INTERVAL + TIMEOUT / 2 + EPSILON
        assert scene.ended_after(begin) <= INTERVAL + TIMEOUT + EPSILON


@pytest.mark.parametrize(("kinds", "gives_up_after"), [((0, 1), 10 * TIMEOUT), ((0,), TIMEOUT), ((), TIMEOUT)])
async def test_lag_is_tolerated_while_all_kinds_of_traffic_come(
    kinds: tuple[int, ...], gives_up_after: float, autojump_clock: MockClock
) -> None:
    async with open_scene() as scene, trio.open_nursery() as nursery:
        nursery.start_soon(scene.talk, *kinds)
        scene.latency, begin = math.inf, trio.current_time()
        await trio.sleep(30)
        assert (len(scene.told) == 1) == (len(kinds) == 2)
        assert gives_up_after - INTERVAL <= scene.ended_after(begin) <= gives_up_after + 2 * INTERVAL
        nursery.cancel_scope.cancel()


async def test_steady_lag_below_the_timeout_is_no_reason_to_give_up(autojump_clock: MockClock) -> None:
    async with open_scene() as scene, trio.open_nursery() as nursery:
        nursery.start_soon(scene.talk, 0, 1)
        scene.latency = 1.5
        await trio.sleep(120)
        assert (len(scene.told), scene.end) == (1, None)
        nursery.cancel_scope.cancel()


async def test_our_own_pause_does_not_give_the_link_up(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        scene.latency = 0.5
        await trio.sleep(0.6)  # a probe is on its way
        autojump_clock.jump(1_000)  # as after SIGSTOP: all deadlines are over, and the bytes have come meanwhile
        sent = scene.sent
        await trio.sleep(5)
        assert scene.sent > sent
        assert scene.end is None


async def test_noise_changes_nothing(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        for noise in (b"x", b"", b"9" * 5_000, b"1", Lost("backplane")):
            scene.probe.offer(noise)
        await trio.sleep(10)
        assert (len(scene.told), scene.end) == (1, None)
