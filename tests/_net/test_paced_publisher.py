"""Publishers of a room wait for its fan-out, first come, first served, and not for ever."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from trioroom._core.meters import Meters
from trioroom._net.paced_publisher import PacedPublisher
from trioroom.backplane.room_channel import RoomChannel, weight
from trioroom.errors import BackplaneUnavailable
from trioroom.testing import cancel_at_step
from trioroom.testing.conformance import make_channel

ONE = weight(b"1")


class Broker:
    """Has one subscriber, whom it sends what is published as soon as it has confirmed that, after ``latency``."""

    ready = True
    history = presence = None

    def __init__(self, channel: RoomChannel) -> None:
        self.channel = channel
        self.latency = 0.0
        self.under_way = 0
        self.is_up = True

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        self.under_way += 1
        try:
            await trio.sleep(self.latency)
        finally:
            self.under_way -= 1
        if not self.is_up:
            raise BackplaneUnavailable("the broker is down")
        self.channel.offer(payload)

    @asynccontextmanager
    async def subscribe(self, room: str, channel: RoomChannel) -> AsyncIterator[None]:
        raise NotImplementedError
        yield


@attrs.define
class Scene:
    """A publisher of one room, and both of its ends."""

    broker: Broker
    channel: RoomChannel
    publisher: PacedPublisher
    nursery: trio.Nursery
    published: list[bytes] = attrs.field(factory=list)

    async def publish(self, payload: bytes) -> None:
        await self.publisher.publish(payload)
        self.published.append(payload)

    async def publish_in_turn(self, *payloads: bytes) -> None:
        """A task for each, each as far as it gets before the next one starts."""
        for payload in payloads:
            self.nursery.start_soon(self.publish, payload)
            await wait_all_tasks_blocked()

    async def take(self, count: int = 1) -> list[object]:
        """As a fan-out does, which tells when it has."""
        taken = [self.channel.receive_nowait() for _ in range(count)]
        self.publisher.move_up()
        await wait_all_tasks_blocked()
        return list(taken)


@asynccontextmanager
async def open_scene(
    max_publications: int, max_bytes: float = math.inf, timeout: float = math.inf
) -> AsyncIterator[Scene]:
    with make_channel(max_publications, max_bytes) as channel:
        broker = Broker(channel)
        async with trio.open_nursery() as nursery:
            yield Scene(broker, channel, PacedPublisher(broker, "room/a", channel, timeout, Meters()), nursery)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("bounds", [(4, math.inf), (5, math.inf), (100, 4 * ONE)])
async def test_publishers_wait_while_half_of_the_channel_is_taken(
    bounds: tuple[int, float], autojump_clock: MockClock
) -> None:
    async with open_scene(*bounds) as scene:
        await scene.publish_in_turn(b"1", b"2", b"3", b"4")
        assert scene.published == [b"1", b"2"]
        assert await scene.take() == [b"1"]
        assert scene.published == [b"1", b"2", b"3"]
        assert await scene.take(2) == [b"2", b"3"]
        assert await scene.take() == [b"4"]


@pytest.mark.parametrize("bounds", [(4, math.inf), (100, 4 * ONE)])
async def test_what_is_under_way_counts(bounds: tuple[int, float], autojump_clock: MockClock) -> None:
    async with open_scene(*bounds) as scene:
        scene.broker.latency = 1
        async with trio.open_nursery() as nursery:
            for payload in (b"1", b"2", b"3"):
                nursery.start_soon(scene.publish, payload)
            await trio.sleep(0.5)
            assert scene.broker.under_way == 2
            await trio.sleep(1)
            assert (len(scene.published), scene.broker.under_way) == (2, 0)
            await scene.take()
        assert trio.current_time() == pytest.approx(2.5, abs=0.1)


@pytest.mark.parametrize("bounds", [(1, math.inf), (100, 10)])
async def test_narrowest_channel_lets_one_through_at_a_time(
    bounds: tuple[int, float], autojump_clock: MockClock
) -> None:
    async with open_scene(*bounds) as scene:
        payloads = [b"%d" % number * 100 for number in range(5)]
        await scene.publish_in_turn(*payloads)
        for payload in payloads:
            assert len(scene.channel) == 1
            assert await scene.take() == [payload]


async def test_newcomer_does_not_overtake_those_who_wait(autojump_clock: MockClock) -> None:
    async with open_scene(2) as scene:
        await scene.publish_in_turn(b"1", b"2", b"3")
        scene.channel.receive_nowait()
        scene.publisher.move_up()
        await scene.publish_in_turn(b"4")  # there is room for 2, whose task has not run since
        for payload in (b"2", b"3", b"4"):
            assert await scene.take() == [payload]


async def test_closing_the_channel_lets_all_go(autojump_clock: MockClock) -> None:
    async with open_scene(2) as scene:
        await scene.publish_in_turn(b"1", b"2", b"3")
        scene.channel.close()
        scene.publisher.move_up()
        await wait_all_tasks_blocked()
        assert scene.published == [b"1", b"2", b"3"]


async def test_room_that_stays_behind_is_an_error_that_tells_what_to_do(autojump_clock: MockClock) -> None:
    async with open_scene(4, timeout=3) as scene:
        await scene.publish_in_turn(b"1", b"2")
        with pytest.raises(BackplaneUnavailable) as raised:
            await scene.publisher.publish(b"3")
        assert trio.current_time() == pytest.approx(3)
        assert str(raised.value) == (
            "room 'room/a' has been behind for publish_timeout=3 s: 2 publications wait for its fan-out on this "
            "server, 0 are on their way there; publish less to it, or raise room_channel_size and room_channel_bytes"
        )
        await scene.take()
        await scene.publisher.publish(b"4")
        assert await scene.take(2) == [b"2", b"4"]


async def test_time_under_way_is_the_backplanes(autojump_clock: MockClock) -> None:
    async with open_scene(4, timeout=3) as scene:
        scene.broker.latency = 100
        await scene.publisher.publish(b"1")
        assert trio.current_time() == pytest.approx(100)


async def test_publication_that_fails_is_not_under_way_any_more(autojump_clock: MockClock) -> None:
    async with open_scene(2) as scene:
        scene.broker.is_up = False
        for _ in range(3):
            with pytest.raises(BackplaneUnavailable, match="the broker is down"):
                await scene.publisher.publish(b"1")
        scene.broker.is_up = True
        await scene.publisher.publish(b"2")


async def test_every_path_is_a_checkpoint(autojump_clock: MockClock) -> None:
    async with open_scene(2, timeout=1) as scene:
        with assert_checkpoints():
            await scene.publisher.publish(b"1")
        with assert_checkpoints(), pytest.raises(BackplaneUnavailable):
            await scene.publisher.publish(b"2")


async def test_cancelled_publishers_leave_nothing_behind(autojump_clock: MockClock) -> None:
    for step in itertools.count():
        async with open_scene(4) as scene:
            with cancel_at_step(step) as scope:
                async with trio.open_nursery() as nursery:
                    for number in range(6):
                        nursery.start_soon(scene.publish, b"%d" % number)
                    for _ in range(4):
                        await wait_all_tasks_blocked()
                        await scene.take(len(scene.channel))
            await scene.take(len(scene.channel))
            with trio.fail_after(1):
                for payload in (b"a", b"b"):  # as many as there are places
                    await scene.publisher.publish(payload)
            assert await scene.take(2) == [b"a", b"b"], f"cancelled at step {step}"
        if not scope.cancelled_caught:
            break
    assert step > 10
