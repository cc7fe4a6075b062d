"""What members notice when the link breaks, also without a word."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

import trioroom
from tests.backplane.observers import SLACK, open_nodes
from tests.backplane.proxy import open_proxy
from tests.backplane.redis.servers import RedisServer
from tests.backplane.test_faults_silence import AGAIN, AGAIN_AFTER_SILENCE, NOTICED
from tests.conftest import app_of
from trioroom.testing import Peer, V1Peer, open_peer, open_test_server, open_v1_peer

pytestmark = pytest.mark.redis


@asynccontextmanager
async def open_servers(*urls: str) -> AsyncIterator[Sequence[trioroom.Server]]:
    """One server for each URL, with an app of its own, as if each were in a process of its own."""
    async with open_nodes(*urls) as nodes, AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(open_test_server(app_of(trioroom.Room), backplane=node, tcp=True))
            for node in nodes
        ]


async def get_ready(server: trioroom.Server) -> int:
    """The status of ``/readyz``."""
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(b"GET /readyz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        answer = b"".join([bytes(data) async for data in stream])
        return int(answer.split()[1])


async def ready_is_told(server: trioroom.Server, status: int, within: float) -> None:
    start = trio.current_time()
    with trio.fail_after(within + SLACK):
        while await get_ready(server) != status:  # noqa: ASYNC110  # a probe of the outside knows no event
            await trio.sleep(0.02)
    print(f"/readyz tells {status}: {trio.current_time() - start:.3f} s")


async def heard(plain: Peer, v1: V1Peer, text: str) -> list[str]:
    """Both hear ``text`` within a second; the types of what v1 got until then."""
    types: list[str] = []
    with trio.fail_after(1):
        assert await plain.receive() == text
        while (envelope := await v1.receive())["type"] != "message":
            assert envelope == {"type": "gap", "room": "room/a", "reason": "backplane", "lost": None}
            types.append(envelope["type"])
        assert envelope["data"] == text
    return types


async def test_members_stay_and_are_told_of_the_gap_while_readiness_follows(valkey_server: RedisServer) -> None:
    async with open_proxy(valkey_server.port) as proxy, AsyncExitStack() as stack:
        urls = (f"redis://127.0.0.1:{proxy.port}", valkey_server.url)
        deaf, hearing = await stack.enter_async_context(open_servers(*urls))
        members: list[tuple[Peer, V1Peer]] = []
        for server in (deaf, hearing):
            plain = await stack.enter_async_context(open_peer(server, "/room/a", tcp=True))
            v1 = await stack.enter_async_context(open_v1_peer(server, tcp=True))
            await v1.join("room/a")
            members.append((plain, v1))
        sender = await stack.enter_async_context(open_peer(hearing, "/room/a"))

        async def say(text: str) -> list[list[str]]:
            await sender.send(text)
            return [await heard(*pair, text) for pair in members]

        assert await say("before") == [[], []]
        assert [await get_ready(server) for server in (deaf, hearing)] == [200, 200]

        valkey_server.kill()
        await ready_is_told(deaf, 503, within=0.5)
        await ready_is_told(hearing, 503, within=0.5)
        await valkey_server.restart()
        await ready_is_told(deaf, 200, AGAIN)
        await ready_is_told(hearing, 200, AGAIN)
        assert await say("after the restart") == [["gap"], ["gap"]]

        proxy.black_hole()
        await ready_is_told(deaf, 503, NOTICED)
        assert await get_ready(hearing) == 200
        proxy.heal()
        await ready_is_told(deaf, 200, AGAIN_AFTER_SILENCE)
        assert await say("after the silence") == [["gap"], []]
        assert [server.connection_count for server in (deaf, hearing)] == [2, 3]
