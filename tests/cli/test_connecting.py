"""What commands that are clients say when they get no connection."""

from __future__ import annotations

import trio

import trioroom
from tests.backplane.processes import free_port
from tests.cli.conftest import DEADLINE, run
from tests.cli.test_join import open_join


async def test_server_without_tls_is_told_from_one_that_is_not_there() -> None:
    with trio.fail_after(DEADLINE):
        async with trioroom.open_server(trioroom.App(), host="127.0.0.1", port=0) as server:
            url = f"wss://127.0.0.1:{server.port}/"
            result = await trio.to_thread.run_sync(run, "publish", "chat/x", "hello", "--url", url)
    assert result.output == (
        f"Error: cannot reach {url}: no TLS is spoken there; write ws:// or http://; is the server running there?\n"
    )


async def test_join_says_why_it_waits() -> None:
    with trio.fail_after(DEADLINE):
        async with open_join(free_port(), "chat/x") as join:
            await join.wait_said(r"\* not connected: Connection refused; again in \d")
