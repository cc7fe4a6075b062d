"""What breaks a link that is then noticed at once: nothing is lost in silence, and traffic flows again soon."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator

import pytest
import trio

from tests.backplane.conftest import servers
from tests.backplane.observers import SLACK, Flow, open_flow, open_nodes
from tests.backplane.proxy import open_proxy
from tests.backplane.redis.servers import RedisServer, binaries, open_redis_server
from trioroom.backplane.base import Lost
from trioroom.errors import BackplaneUnavailable
from trioroom.testing.conformance import subscribed

pytestmark = pytest.mark.redis

ROOMS = ("chat/a", "chat/b", "chat/c", "chat/d")
EVERYBODY = {(node, room) for node in (0, 1) for room in ROOMS}
AGAIN = 2.0  # seconds from the server's return until traffic flows


@pytest.fixture
async def flow(redis_server: RedisServer) -> AsyncIterator[Flow]:
    """Between two nodes; what it checks fails the test as an error of the teardown."""
    async with open_nodes(redis_server.url, redis_server.url) as nodes, open_flow(nodes, ROOMS) as opened:
        yield opened


async def test_restarted_server(redis_server: RedisServer, flow: Flow) -> None:
    redis_server.kill()
    await flow.becomes(False, within=0.5)
    down_since = trio.current_time()
    await trio.sleep(1)
    assert not any(flow.was_ready(node, down_since) for node in (0, 1))
    await redis_server.restart()
    await flow.flows(AGAIN)
    await flow.becomes(True, within=0.5)
    assert flow.noticed() == EVERYBODY


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_killed_connections(kind: str, redis_server: RedisServer, flow: Flow) -> None:
    for _ in range(3):
        assert await redis_server.command("CLIENT", "KILL", "TYPE", kind) == 2  # those of both nodes, and not the asker
        await flow.becomes(False, within=0.5)
        await flow.flows(AGAIN)
        await flow.becomes(True, within=0.5)
    assert flow.noticed() == EVERYBODY


async def test_listener_that_is_kicked_for_reading_too_slowly(redis_server: RedisServer, flow: Flow) -> None:
    await redis_server.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 256kb 0 0")
    flood(redis_server, b"trioroom:room:" + ROOMS[0].encode(), count=2_000, size=16_384)
    assert "overcoming of output buffer limits" in redis_server.log
    await flow.becomes(False, within=0.5)
    await flow.told(AGAIN)
    await flow.flows(AGAIN)
    await flow.becomes(True, within=0.5)


def flood(server: RedisServer, channel: bytes, count: int, size: int) -> None:
    """Publish while nobody in this thread reads: more than the kernel's buffers hold."""
    command = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, size, b"x" * size)
    with socket.socket(socket.AF_UNIX) as publisher:
        publisher.connect(server.unix_url.removeprefix("unix://"))
        publisher.sendall(command * count)
        replies = b""
        while replies.count(b"\n") < count:
            replies += publisher.recv(65_536)


@pytest.mark.parametrize("binary", servers())
async def test_wrong_password_after_a_restart(binary: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "trioroom.backplane")
    async with open_redis_server(binaries()[binary], "--requirepass", "sesame") as server:
        url = server.url.replace("://", "://:sesame@") + "?timeout=1"
        async with open_nodes(url, url) as nodes, open_flow(nodes, ROOMS) as flow:
            await server.restart("--requirepass", "changed")
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
            refusals = [message for message in caplog.messages if "WRONGPASS" in message]
            assert len(refusals) == len(nodes), refusals
            for message in refusals:
                assert message.endswith("; check user and password in the URL; trying again")
            assert "sesame" not in caplog.text
            await server.restart()
            await flow.flows(AGAIN)
            await flow.becomes(True, within=0.5)
        assert flow.noticed() == EVERYBODY


async def test_reset_by_the_network_hits_only_who_is_behind_it(valkey_server: RedisServer) -> None:
    async with open_proxy(valkey_server.port) as proxy:
        async with open_nodes(f"redis://127.0.0.1:{proxy.port}", valkey_server.url) as nodes:
            async with open_flow(nodes, ROOMS) as flow:
                for _ in range(3):
                    proxy.reset()
                    await flow.becomes(False, within=0.5, nodes=[0])
                    await flow.flows(AGAIN)
                    await flow.becomes(True, within=0.5)
            assert flow.noticed() == {(0, room) for room in ROOMS}
            assert flow.always_ready(1)


async def test_room_whose_subscriber_does_not_read_holds_up_no_other(redis_server: RedisServer, flow: Flow) -> None:
    capacity, count = 8, 100
    async with open_nodes(redis_server.url) as (node,), subscribed(node, "slow", capacity) as deliveries:
        for number in range(count):
            await node.publish("slow", b"%d" % number)
        await node.publish("other", b"x")  # its own node has answered, so the others' publications are here soon
        await flow.flows(AGAIN)
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


async def test_publishing_on_a_link_that_was_closed_raises(valkey_server: RedisServer) -> None:
    async with open_nodes(valkey_server.url) as (node,):
        pass
    with trio.fail_after(1), pytest.raises(BackplaneUnavailable):
        await node.publish(ROOMS[0], b"x")
    assert not node.ready


@pytest.mark.no_cover
async def test_20000_subscriptions_are_restored_in_batches_and_all_are_told(valkey_server: RedisServer) -> None:
    count, deadline = 20_000, 30.0  # seconds for each step; it takes two or three where nothing else runs
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

    async with open_nodes(f"{valkey_server.url}?timeout=60") as (node,), trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(observe, number)
        await until_all(live, "live", 60.0)
        await valkey_server.command("CONFIG", "RESETSTAT")
        assert await valkey_server.command("CLIENT", "KILL", "TYPE", "pubsub") == 1
        await until_all(told, "told")
        stats: bytes = await valkey_server.command("INFO", "commandstats")
        [calls] = [line for line in stats.splitlines() if line.startswith(b"cmdstat_subscribe:calls=")]
        assert int(calls.split(b"=")[1].split(b",")[0]) < count / 100
        for start in range(0, count, 1_000):
            async with trio.open_nursery() as publishing:
                for number in range(start, start + 1_000):
                    publishing.start_soon(node.publish, f"room/{number}", b"%d" % number)
        await until_all(heard, "heard")
        assert node.ready
