from __future__ import annotations

import trio
from trio.testing import MockClock

from trioroom.bench.app import app
from trioroom.testing import open_peer, open_test_server


async def test_rooms_are_what_the_scenarios_want(autojump_clock: MockClock) -> None:
    with trio.fail_after(10):
        async with open_test_server(app) as server:
            for path in ("/all", "/chat/7", "/kept"):
                async with open_peer(server, path) as one, open_peer(server, path) as two:
                    await one.send("x")
                    assert (await one.receive(), await two.receive()) == ("x", "x")
            async with open_peer(server, "/echo") as one, open_peer(server, "/echo") as two:
                await one.send("x")
                assert await one.receive() == "x"
                await two.send("y")
                assert await two.receive() == "y"
