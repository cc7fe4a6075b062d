"""What a node sees of Redis: bounds, refusals, deadlines, and that cancelling leaves nothing behind."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from tests.backplane.redis.fake_server import FakeNetwork, FakeServer
from trioroom.backplane.base import Lost
from trioroom.backplane.redis import RedisBackplane, RedisSettings, link, open_redis
from trioroom.errors import BackplaneError, BackplaneUnavailable
from trioroom.testing import cancel_at_step
from trioroom.testing.conformance import subscribed

URL = "redis://fake:1"
CHANNEL = b"trioroom:room:hall/a"


@asynccontextmanager
async def open_network(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeNetwork]:
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery)
        monkeypatch.setattr(link, "open_connection", network.open_connection)
        yield network
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_scene(
    monkeypatch: pytest.MonkeyPatch, settings: RedisSettings | None = None
) -> AsyncIterator[tuple[RedisBackplane, FakeServer]]:
    async with open_network(monkeypatch) as network:
        server = network.add()
        async with open_redis(URL, settings=settings) as backplane:
            yield backplane, server


async def test_room_has_a_channel_with_the_prefix_while_somebody_listens(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as (backplane, server):
        assert backplane.ready
        async with subscribed(backplane, "hall/a", 2) as one, subscribed(backplane, "hall/a", 2) as two:
            assert server.channels() == {CHANNEL}
            with assert_checkpoints():
                await backplane.publish("hall/a", b"x")
            assert (await one.receive(), await two.receive()) == (b"x", b"x")
        await wait_all_tasks_blocked()
        assert server.channels() == set()
        with pytest.raises(trio.ClosedResourceError):
            one.receive_nowait()


async def test_prefix_keeps_apps_apart(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    async with open_network(monkeypatch) as network:
        server = network.add()
        async with open_redis(f"{URL}?prefix=shop") as backplane, subscribed(backplane, "ä", 1):
            assert server.channels() == {"shop:room:ä".encode()}
            subscribed_to = next(command[1] for command in server.log if command[0] == b"SUBSCRIBE")
            assert subscribed_to.startswith(b"shop:probe:")


async def test_publication_beyond_the_bound_is_the_callers_mistake(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch, RedisSettings(max_publication_bytes=10)) as (backplane, _):
        await backplane.publish("hall/a", b"x" * 10)
        with pytest.raises(ValueError, match=r"^publication of 11 bytes exceeds max_publication_bytes=10; raise the"):
            await backplane.publish("hall/a", b"x" * 11)


async def test_refusals_are_told_with_the_room_and_what_the_server_said(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as (backplane, server):
        server.refuse(b"PUBLISH", "NOPERM no")
        with pytest.raises(BackplaneError, match=r"^the broker refused a publication to room 'hall/a': NOPERM no$"):
            await backplane.publish("hall/a", b"x")
        server.refuse(b"SUBSCRIBE", "NOPERM no")
        for _ in range(2):
            with (
                trio.fail_after(0.5),
                pytest.raises(BackplaneError, match="the broker refuses SUBSCRIBE: NOPERM no"),
            ):
                async with subscribed(backplane, "hall/a", 1):
                    pytest.fail("it was refused")
        del server.answers[b"SUBSCRIBE"]
        async with subscribed(backplane, "hall/a", 1):
            assert server.channels() == {CHANNEL}


async def test_subscription_without_a_confirmation_fails_after_timeout_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch, RedisSettings(timeout=1.5, probe_timeout=math.inf)) as (backplane, server):
        server.latency = math.inf
        expected = "^the broker has not confirmed the subscription of room 'hall/a' within timeout=1.5 s; retry later$"
        with pytest.raises(BackplaneUnavailable, match=expected):
            async with subscribed(backplane, "hall/a", 1):
                pytest.fail("nobody has confirmed it")
        await wait_all_tasks_blocked()
        assert len(backplane._subscriptions) == 0
        assert server.log[-1] == [b"UNSUBSCRIBE", CHANNEL]


async def test_full_subscription_is_told_how_much_it_lost(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as (backplane, _):
        async with subscribed(backplane, "hall/a", 2) as receive:
            for _ in range(3):
                await backplane.publish("hall/a", b"x")
            await wait_all_tasks_blocked()
            assert receive.receive_nowait() == Lost("overflow", 3)


async def test_opening_fails_with_the_reason_and_never_waits_for_ever(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_network(monkeypatch) as network:
        for reason in ("cannot connect: refused", "no answer to the first command"):
            with trio.fail_after(3), pytest.raises(BackplaneUnavailable, match=f"cannot use .* backplane: .*{reason}"):
                async with open_redis(URL):
                    pytest.fail("there is none")
            network.add().latency = math.inf  # the next time


async def test_publish_and_subscribe_can_be_cancelled_at_any_step(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as (backplane, server):
        publisher = backplane._topology.publish.__self__  # type: ignore[attr-defined]
        for step in itertools.count():
            with cancel_at_step(step) as scope:
                async with subscribed(backplane, "hall/a", 1) as receive:
                    await backplane.publish("hall/a", b"x")
                    await receive.receive()
            await wait_all_tasks_blocked()
            assert (publisher.queued, publisher._bytes) == (0, 0), f"cancelled at step {step}"
            assert (len(backplane._subscriptions), server.channels()) == (0, set()), f"cancelled at step {step}"
            if not scope.cancelled_caught:
                break
        assert step > 5
    assert publisher.queued == 0


async def test_opening_can_be_cancelled_at_any_step_and_closes_its_connections(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_network(monkeypatch) as network:
        server = network.add()
        for step in itertools.count():
            with cancel_at_step(step) as scope:
                async with open_redis(URL) as backplane:
                    await backplane.publish("hall/a", b"x")
            await wait_all_tasks_blocked()
            assert server.sessions == [], f"cancelled at step {step}"
            if not scope.cancelled_caught:
                break
        assert step > 10
