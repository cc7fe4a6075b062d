"""What breaks a link that is then noticed at once: nothing is lost in silence, and traffic flows again soon."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest

from tests.backplane.observers import Flow, open_flow, open_nodes
from tests.backplane.redis.servers import RedisServer

pytestmark = pytest.mark.redis

ROOMS = ("chat/a", "chat/b", "chat/c", "chat/d")
EVERYBODY = {(node, room) for node in (0, 1) for room in ROOMS}
AGAIN = 2.0  # seconds from the server's return until traffic flows


@pytest.fixture
async def flow(redis_server: RedisServer) -> AsyncIterator[Flow]:
    """Between two nodes; what it checks fails the test as an error of the teardown."""
    async with open_nodes(redis_server.url, redis_server.url) as nodes, open_flow(nodes, ROOMS) as opened:
        yield opened


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
