"""Probes go by the relay, whose numbers only grow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from tests.backplane.nats.scenes import NOBODY, Peer, answer, connect
from trioroom._core.meters import LinkMeters
from trioroom.backplane.nats import NatsSettings
from trioroom.backplane.nats.relay_probe import RelayProbe
from trioroom.backplane.nats.requests import Requests
from trioroom.backplane.nats.streams import JetStreamUnavailable
from trioroom.backplane.supervision import LinkLost


class Scene:
    """A relay, and a probe that is on until it gives up."""

    def __init__(self) -> None:
        self.requests = Requests(1, 2.0, 100, 10_000)
        self.probe = RelayProbe(NatsSettings(), self.requests, LinkMeters())
        self.number = 0
        self.answer: bytes | None = None  # instead of a number
        self.head = b""
        self.end = ""

    async def serve(self, peer: Peer) -> None:
        while True:
            for payload, inbox in (await peer.published()).items():
                self.number += 1
                told = b'{"seq":%d}' % self.number if self.answer is None else self.answer
                self.requests.take([answer(inbox, told, self.head)])
                if not self.head:
                    self.probe.channel.deliver(payload)

    async def keep_probing(self) -> None:
        try:
            await self.probe.keep_probing(lambda _: None, lambda: (0,))
        except LinkLost as exc:
            self.end = str(exc)


@asynccontextmanager
async def open_scene() -> AsyncIterator[Scene]:
    async with trio.open_nursery() as nursery:
        scene = Scene()
        connection, peer = connect()
        await nursery.start(scene.requests.run, connection)
        nursery.start_soon(scene.serve, peer)
        nursery.start_soon(scene.keep_probing)
        await trio.sleep(10.5)
        assert (scene.number, scene.end) == (11, "")
        yield scene
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("number", "answered", "head", "reason"),
    [
        (3, None, b"", "the stream of the rooms was lost, and has begun anew"),
        (
            10,
            b'{"stream":"x"}',
            b"",
            "what answers there is no NATS server: a publication was answered without a number",
        ),
        (10, b"", NOBODY, "a probe did not come round within 2 s"),
    ],
    ids=["begun anew", "no number", "nobody there"],
)
async def test_relay_that_does_not_do_its_work_is_told(
    number: int, answered: bytes | None, head: bytes, reason: str, autojump_clock: MockClock
) -> None:
    async with open_scene() as scene:
        scene.number, scene.answer, scene.head = number, answered, head
        await trio.sleep(4)
        assert scene.end.startswith(reason)


async def test_nobody_to_number_what_passes_by_is_told(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        scene.head = NOBODY
        with pytest.raises(JetStreamUnavailable, match="the stream of the rooms has no leader, or is gone"):
            await scene.probe.pass_by()


async def test_on_another_connection_numbers_may_begin_anew(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        scene.number = 0
        scene.probe.begin()
        assert await scene.probe.pass_by() == 1
