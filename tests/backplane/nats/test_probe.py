"""A link is ready while its probes come round, and is given up when they do not; by a fake clock."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from tests.backplane.nats.scenes import Peer, answer, connect
from trioroom._core.meters import LinkMeters
from trioroom.backplane.nats import NatsSettings
from trioroom.backplane.nats.probe import Probe
from trioroom.backplane.nats.protocol import LinkLost
from trioroom.backplane.nats.requests import Requests

EPSILON = 0.01


class Scene:
    """A relay that answers after a while, and what the probe tells."""

    def __init__(self, settings: NatsSettings, nursery: trio.Nursery) -> None:
        self.requests = Requests(1, 100.0, 100, 10_000)
        self.meters = LinkMeters()
        self.probe = Probe(settings, self.requests, self.meters)
        self.latency = 0.0
        self.number = 0
        self.traffic = 0
        self.answers: bytes | None = None  # instead of a number
        self.told: list[tuple[float, bool]] = []
        self.end: tuple[float, str] | None = None
        self._nursery = nursery

    async def serve(self, peer: Peer) -> None:
        while True:
            for payload, inbox in (await peer.published()).items():
                self._nursery.start_soon(self._relay, payload, inbox)

    async def _relay(self, payload: bytes, inbox: bytes) -> None:
        await trio.sleep(self.latency)
        self.number += 1
        self.requests.take([answer(inbox, self.answers or b'{"seq":%d}' % self.number)])
        if self.probe.channel.live:
            self.probe.channel.deliver(payload)

    async def keep_probing(self) -> None:
        try:
            await self.probe.keep_probing(self._tell, lambda: (self.traffic, self.traffic))
        except LinkLost as exc:
            self.end = trio.current_time(), str(exc)

    def _tell(self, ready: bool) -> None:
        if not self.told or self.told[-1][1] != ready:
            self.told.append((trio.current_time(), ready))

    async def talk(self) -> None:
        """So that others' publications come and are answered."""
        while True:
            self.traffic += 1
            await trio.sleep(0.1)


@asynccontextmanager
async def open_scene(settings: NatsSettings | None = None) -> AsyncIterator[Scene]:
    async with trio.open_nursery() as nursery:
        scene = Scene(settings or NatsSettings(), nursery)
        connection, peer = connect()
        await nursery.start(scene.requests.run, connection)
        await peer.read()
        nursery.start_soon(scene.serve, peer)
        scene.probe.channel.confirm()
        nursery.start_soon(scene.keep_probing)
        await trio.sleep(10)
        yield scene
        nursery.cancel_scope.cancel()


def since(begin: float, moment: tuple[float, object] | None) -> float:
    assert moment is not None
    return moment[0] - begin


async def test_ready_from_the_first_probe_and_one_goes_out_each_interval(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        assert (scene.told, scene.number) == ([(0.0, True)], 10)
        await trio.sleep(100)
        assert (len(scene.told), scene.number, scene.meters.round_trips.count) == (1, 110, 110)


@pytest.mark.parametrize("offset", [0.0, 0.3, 0.999])
async def test_silence_is_noticed_within_its_bound(offset: float, autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        await trio.sleep(offset)
        scene.latency, begin = math.inf, trio.current_time()
        await trio.sleep(4)
        assert since(begin, scene.told[-1]) <= 1.0 + 1.0 + EPSILON  # probe_interval and a tick
        assert since(begin, scene.end) <= 1.0 + 2.0 + EPSILON  # probe_interval and probe_timeout
        assert scene.end is not None
        assert scene.end[1].startswith("a probe did not come round within ")


async def test_answer_alone_is_not_enough(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        scene.probe.channel.interrupt()
        begin = trio.current_time()
        await trio.sleep(4)
        assert since(begin, scene.end) <= 3.0 + EPSILON


async def test_lag_is_tolerated_while_others_publications_come_up_to_ten_times_the_timeout(
    autojump_clock: MockClock,
) -> None:
    async with open_scene() as scene, trio.open_nursery() as nursery:
        nursery.start_soon(scene.talk)
        scene.latency, begin = math.inf, trio.current_time()
        await trio.sleep(30)
        assert [ready for _, ready in scene.told] == [True]
        assert 19 <= since(begin, scene.end) <= 22
        nursery.cancel_scope.cancel()


async def test_steady_lag_below_the_timeout_is_no_reason_to_give_up(autojump_clock: MockClock) -> None:
    async with open_scene() as scene, trio.open_nursery() as nursery:
        nursery.start_soon(scene.talk)
        scene.latency = 1.5
        await trio.sleep(120)
        assert (len(scene.told), scene.end) == (1, None)
        nursery.cancel_scope.cancel()


async def test_our_own_pause_does_not_give_the_link_up(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        scene.latency = 0.5
        await trio.sleep(1.1)  # a probe is on its way
        autojump_clock.jump(1_000)  # as after SIGSTOP: all deadlines are over, and the bytes have come meanwhile
        number = scene.number
        await trio.sleep(5)
        assert scene.number > number
        assert scene.end is None


async def test_noise_on_its_subject_changes_nothing(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        for noise in (b"x", b"", b"9" * 5_000, b"1"):
            scene.probe.channel.deliver(noise)
        await trio.sleep(10)
        assert (len(scene.told), scene.end) == (1, None)


@pytest.mark.parametrize(
    ("number", "answers", "reason"),
    [
        (3, None, "the stream of the rooms was lost, and has begun anew"),
        (10, b'{"stream":"x"}', "what answers there is no NATS server: a publication was answered without a number"),
    ],
)
async def test_relay_that_has_lost_its_numbers_is_told(
    number: int, answers: bytes | None, reason: str, autojump_clock: MockClock
) -> None:
    async with open_scene() as scene:
        scene.number, scene.answers = number, answers
        await trio.sleep(1)
        assert scene.end is not None
        assert scene.end[1] == reason
