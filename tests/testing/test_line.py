"""The Python client in memory: reconnects, drains and silence on the virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

import trioroom
from trioroom.backplane.memory import MemoryBackplane
from trioroom.client import Backoff, Client, ClientRoom
from trioroom.testing import FaultyBackplane, open_client, open_line, open_peer, open_test_server


class Chat(trioroom.Room):
    history = trioroom.History(size=100, ttl=300)


@pytest.fixture
def app() -> trioroom.App:
    app = trioroom.App()
    app.route("chat/{name}", Chat)
    return app


@asynccontextmanager
async def in_lobby(client: Client) -> AsyncIterator[ClientRoom]:
    async with client.join("chat/lobby") as room:
        yield room


async def test_client_and_server_talk(app: trioroom.App) -> None:
    async with open_test_server(app) as server, open_client(server) as ada, open_client(server, codec="msgpack") as bob:
        async with in_lobby(ada) as hers, in_lobby(bob) as his:
            await his.publish("hello")
            assert (await anext(hers)).data == "hello"


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt()])
async def test_error_in_the_body_comes_out_as_it_is(error: BaseException, app: trioroom.App) -> None:
    async def fail() -> None:
        async with (
            open_test_server(app, backplane=FaultyBackplane()) as server,
            open_peer(server, "/chat/lobby"),
            open_line(server) as line,
            open_client(line) as client,
        ):
            await client.wait_open()
            raise error

    with pytest.raises(type(error)) as raised:
        await fail()
    assert raised.value is error


async def test_client_comes_back_after_a_cut_and_has_missed_nothing(
    app: trioroom.App, autojump_clock: MockClock
) -> None:
    async with open_test_server(app) as server, open_line(server) as line, open_client(line) as client:
        async with in_lobby(client) as room:
            line.server = None
            line.cut()
            await app.publish("chat/lobby", "missed")
            await trio.sleep(60)
            assert line.dials > 3
            assert client.state.name == "waiting"
            line.server = server
            assert (await anext(room)).data == "missed"


async def test_silent_line_is_found_out_by_either_side(app: trioroom.App, autojump_clock: MockClock) -> None:
    settings = trioroom.Settings(ping_interval=20, ping_timeout=5)
    async with open_test_server(app, settings) as server, open_line(server) as line, open_client(line) as client:
        async with in_lobby(client) as room:
            await trio.sleep(300)
            assert line.dials == 1
            line.silence()
            silent_since = trio.current_time()
            await app.publish("chat/lobby", "into the void")
            assert (await anext(room)).data == "into the void"
            assert line.dials == 2
            assert 5 <= trio.current_time() - silent_since <= 60
            await trio.sleep(60)
            assert server.connection_count == 1


async def test_drain_hands_clients_over_to_the_next_server(autojump_clock: MockClock) -> None:
    backplane = MemoryBackplane()
    async with open_line() as line, open_client(line, backoff=Backoff(first=1.0)) as client:
        for expected in range(1, 4):
            app = trioroom.App()
            app.route("chat/{name}", Chat)
            async with open_test_server(app, backplane=backplane) as server:
                line.server = server
                async with in_lobby(client) as room:
                    await app.publish("chat/lobby", expected)
                    assert (await anext(room)).data == expected
                line.server = None
    assert line.dials >= 3
