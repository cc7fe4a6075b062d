"""What breaks a link that is then noticed at once: nothing is lost in silence, and traffic flows again soon.

What only one broker does to us stands in its own folder, and so does Kafka, of which an outage costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import attrs
import pytest
import trio

from tests.backplane.brokers import Broker, brokers, parameters
from tests.backplane.nats.servers import NatsServer, open_nats_server
from tests.backplane.observers import SLACK, Flow, open_flow, open_nodes
from tests.backplane.proxy import open_proxy
from tests.backplane.redis.servers import RedisServer, binaries, open_redis_server
from trioroom.backplane.base import Lost
from trioroom.errors import BackplaneUnavailable
from trioroom.testing.conformance import subscribed

ROOMS = ("chat/a", "chat/b", "chat/c", "chat/d")
EVERYBODY = {(node, room) for node in (0, 1) for room in ROOMS}
AGAIN = 2.0  # seconds from the server's return until traffic flows


@pytest.fixture
async def flow(broker: Broker) -> AsyncIterator[Flow]:
    """Between two nodes; what it checks fails the test as an error of the teardown."""
    async with open_nodes(broker.url(), broker.url()) as nodes, open_flow(nodes, ROOMS) as opened:
        yield opened


@brokers("redis", "valkey", "nats")
async def test_restarted_server(broker: Broker, flow: Flow) -> None:
    broker.server.kill()
    await flow.becomes(False, within=0.5)
    down_since = trio.current_time()
    await trio.sleep(1)
    assert not any(flow.was_ready(node, down_since) for node in (0, 1))
    await broker.server.restart()
    await flow.flows(AGAIN)
    await flow.becomes(True, within=0.5)
    assert flow.noticed() == EVERYBODY


@brokers("valkey", "nats")
async def test_reset_by_the_network_hits_only_who_is_behind_it(broker: Broker) -> None:
    async with open_proxy(broker.server.port) as proxy:
        async with open_nodes(broker.url(proxy.port), broker.url()) as nodes, open_flow(nodes, ROOMS) as flow:
            for _ in range(3):
                proxy.reset()
                await flow.becomes(False, within=0.5, nodes=[0])
                await flow.flows(AGAIN)
                await flow.becomes(True, within=0.5)
        assert flow.noticed() == {(0, room) for room in ROOMS}
        assert flow.always_ready(1)


@brokers("redis", "valkey", "nats")
async def test_room_whose_subscriber_does_not_read_holds_up_no_other(broker: Broker, flow: Flow) -> None:
    capacity, count = 8, 100
    async with open_nodes(broker.url()) as (node,), subscribed(node, "slow", capacity) as deliveries:
        for number in range(count):
            await node.publish("slow", b"%d" % number)
        async with subscribed(node, "other", 1) as after:
            await node.publish("other", b"x")
            await after.receive()
        first, *rest = [deliveries.receive_nowait() for _ in range(len(deliveries))]
        assert isinstance(first, Lost)
        assert first.reason == "overflow"
        assert first.count is not None
        assert rest == [b"%d" % number for number in range(first.count, count)]
        await node.publish("slow", b"heard again")
        with trio.fail_after(1):
            assert await deliveries.receive() == b"heard again"
    assert flow.noticed() == set()
    assert flow.always_ready(0)
    assert flow.always_ready(1)


@brokers("valkey", "nats")
async def test_publishing_on_a_link_that_was_closed_raises(broker: Broker) -> None:
    async with open_nodes(broker.url()) as (node,):
        pass
    with trio.fail_after(1), pytest.raises(BackplaneUnavailable):
        await node.publish(ROOMS[0], b"x")
    assert not node.ready


# -- a password that changes -----------------------------------------------------------------------


@attrs.frozen
class Locked:
    """A broker that wants the password ``sesame``."""

    opening: Callable[[], AbstractAsyncContextManager[RedisServer | NatsServer]]
    user: str
    refusal: str
    """What it says to who has another one."""
    advice: str


def locked(name: str) -> Locked:
    if name == "nats":
        advice = "check the user and password, token or key that the URL names"
        return Locked(lambda: open_nats_server(_of_nats("sesame")), "app", "Authorization Violation", advice)
    opening = partial(open_redis_server, binaries()[name], "--requirepass", "sesame")
    return Locked(opening, "", "WRONGPASS", "check user and password in the URL")


def _of_nats(password: str) -> str:
    return f"authorization {{ user: app, password: {password} }}"


async def restart_with(server: RedisServer | NatsServer, password: str) -> None:
    if isinstance(server, NatsServer):
        server.configure(_of_nats(password))
        await server.restart()
    else:
        await server.restart("--requirepass", password)


@pytest.mark.parametrize("name", parameters("redis", "valkey", "nats"))
async def test_wrong_password_after_a_restart(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "trioroom.backplane")
    broker = locked(name)
    async with broker.opening() as server:
        url = server.url.replace("://", f"://{broker.user}:sesame@") + "?timeout=1"
        async with open_nodes(url, url) as nodes, open_flow(nodes, ROOMS) as flow:
            await restart_with(server, "changed")
            refused_since = trio.current_time()
            errors: list[BackplaneUnavailable] = []

            async def publish() -> None:
                with pytest.raises(BackplaneUnavailable, match=r"retry later$") as raised:
                    await nodes[0].publish(ROOMS[0], b"x")
                errors.append(raised.value)

            with trio.fail_after(1 + SLACK):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(publish)
                    nursery.start_soon(publish)
            assert errors[0] is not errors[1], "they would grow each other's tracebacks"
            await trio.sleep_until(refused_since + 2)  # several attempts
            with trio.fail_after(1 + SLACK):
                await publish()
            assert not any(flow.was_ready(node, refused_since) for node in (0, 1))
            assert all(flow.failures(room) > 0 for room in ROOMS)
            refusals = [message for message in caplog.messages if broker.refusal in message]
            assert len(refusals) == len(nodes), refusals
            assert all(message.endswith(f"; {broker.advice}; trying again") for message in refusals)
            assert "sesame" not in caplog.text
            await restart_with(server, "sesame")
            await flow.flows(AGAIN)
            await flow.becomes(True, within=0.5)
        assert flow.noticed() == EVERYBODY


# -- many rooms ------------------------------------------------------------------------------------


@pytest.mark.untraced
@brokers("valkey", "nats")
@pytest.mark.parametrize("count", [5_000, pytest.param(20_000, marks=pytest.mark.thorough)])
async def test_very_many_subscriptions_are_restored_in_batches_and_all_are_told(broker: Broker, count: int) -> None:
    deadline = 30.0  # seconds for each step; 20,000 take two or three where nothing else runs
    live: set[int] = set()
    told: set[int] = set()
    heard: set[int] = set()

    async def observe(number: int) -> None:
        async with subscribed(node, f"room/{number}", 4) as deliveries:
            live.add(number)
            assert await deliveries.receive() == Lost("backplane")
            told.add(number)
            assert await deliveries.receive() == b"%d" % number
            heard.add(number)

    async def until_all(done: set[int], what: str, deadline: float = deadline) -> None:
        start = trio.current_time()
        with trio.move_on_after(deadline):
            while len(done) < count:  # noqa: ASYNC110  # an event at each would be counted too
                await trio.sleep(0.01)
        print(f"{count} {what}: {trio.current_time() - start:.2f} s")
        assert len(done) == count, f"{len(done)} of {count} are {what} after {deadline} s"

    async with open_nodes(broker.url(timeout=60)) as (node,), trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(observe, number)
        await until_all(live, "live", 60.0)
        if isinstance(broker.server, RedisServer):
            await broker.server.command("CONFIG", "RESETSTAT")
        await broker.kick_clients()
        await until_all(told, "told")
        if isinstance(broker.server, RedisServer):
            assert await calls_to_subscribe(broker.server) < count / 100
        for start in range(0, count, 1_000):
            async with trio.open_nursery() as publishing:
                for number in range(start, start + 1_000):
                    publishing.start_soon(node.publish, f"room/{number}", b"%d" % number)
        await until_all(heard, "heard")
        assert node.ready


async def calls_to_subscribe(server: RedisServer) -> int:
    statistics: bytes = await server.command("INFO", "commandstats")
    [calls] = [line for line in statistics.splitlines() if line.startswith(b"cmdstat_subscribe:calls=")]
    return int(calls.split(b"=")[1].split(b",")[0])
