"""The files for NATS in docs/deploy: the server takes them, and what they permit is enough."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import trio

from tests.backplane.nats.brokers import open_nodes
from tests.backplane.nats.servers import binary, open_nats_server
from trioroom.testing.conformance import ROOM, subscribed
from trioroom.testing.histories import HISTORY, listening, publish_numbers, read_forward
from trioroom.testing.presence_conformance import Watcher

DEPLOY = Path(__file__).parent.parent.parent / "docs" / "deploy"
pytestmark = pytest.mark.nats


def test_server_finds_nothing_wrong_with_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "nats.conf"
    path.write_text((DEPLOY / "nats.conf").read_text("utf-8").replace("/data", str(tmp_path)))
    ended = subprocess.run([binary(), "-t", "--config", path], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "is valid" in ended.stderr


async def test_user_of_the_page_may_do_all_that_rooms_need() -> None:
    permissions = (DEPLOY / "nats-permissions.conf").read_text("utf-8")
    with trio.fail_after(60):
        async with open_nats_server(permissions) as server:
            url = server.url.replace("://", "://chat:s3cret@")
            async with open_nodes(url, url) as (one, two):
                async with subscribed(two, ROOM, 10) as channel:
                    await one.publish(ROOM, b"hello", "id")
                    assert await channel.receive() == b"hello"
                async with listening(two.history):
                    assert await one.history.publish("unused", b"nothing keeps it", None) is None
                    await publish_numbers(one.history, 3)
                    assert await read_forward(two.history) == [b"0", b"1", b"2"]
                    assert [kept.payload for kept in (await two.history.read_before(ROOM, HISTORY, 9, 9)).kept]
                watcher = Watcher()
                async with two.presence.open(ROOM, watcher, 0.01):
                    async with one.presence.open(ROOM, Watcher(), 0.01) as seat:
                        seat.put("ada", b"here")
                        await watcher.wait_rows(("ada", b"here"))
                    await watcher.wait_count(0)
                await server.restart()
                await publish_numbers(one.history, 1)
            assert "iolation" not in server.log
