"""The plugin in a project of a user's, in a process of its own: ours has loaded everything long ago."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FILES = {
    "pytest.ini": "[pytest]\ntrio_mode = true\nfilterwarnings = error\n",
    "conftest.py": """
import sys

assert not [name for name in sys.modules if name.partition(".")[0] == "trioroom"]
""",
    "echo/conftest.py": """
import pytest


@pytest.fixture
def trioroom_app():
    import trioroom

    class Echo(trioroom.Room):
        async def on_message(self, member, message):
            await self.publish(message.data)

    app = trioroom.App()
    app.route("echo/{name}", Echo)
    return app
""",
    "echo/test_server.py": """
import pytest
import trio

from trioroom import CloseCode, ConnectionClosed, Settings
from trioroom.testing import FaultyBackplane, open_peer, open_v1_peer


async def test_server_runs(trioroom_server, autojump_clock):
    async with open_peer(trioroom_server, "/echo/a") as peer:
        await peer.send("hello")
        assert await peer.receive() == "hello"
        await trio.sleep(3600)
        assert trioroom_server.connection_count == 1


class TestOtherSettings:
    @pytest.fixture
    def trioroom_settings(self):
        return Settings(ping_interval=20, ping_timeout=10)

    async def test_they_are_used(self, trioroom_server, autojump_clock):
        async with open_peer(trioroom_server, "/echo/a") as peer:
            peer.answers = False
            with pytest.raises(ConnectionClosed) as closed:
                await peer.receive()
        assert closed.value.code == CloseCode.PING_TIMEOUT


class TestFaults:
    @pytest.fixture
    def trioroom_backplane(self):
        return FaultyBackplane()

    async def test_backplane_is_used(self, trioroom_server, trioroom_backplane, autojump_clock):
        async with open_v1_peer(trioroom_server) as peer:
            await peer.join("echo/a")
            with trioroom_backplane.partitioned():
                await trio.sleep(1)
            assert (await peer.receive())["type"] == "gap"
""",
    "test_own_backplane.py": """
from contextlib import asynccontextmanager

from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import BackplaneConformance


class Mumbling(MemoryBackplane):
    async def publish(self, room, payload, publication_id=None):
        await super().publish(room, payload[:3], publication_id)


class TestMumbling(BackplaneConformance):
    @asynccontextmanager
    async def open_nodes(self, count):
        yield [Mumbling()] * count
""",
    "echo/test_not_async.py": "def test_that_is_not_async(trioroom_server): ...",
    "test_without_app.py": "async def test_that_has_no_app(trioroom_server): ...",
}


def test_fixtures_run_a_server_and_asserts_of_the_suites_explain_themselves(tmp_path: Path) -> None:
    (tmp_path / "echo").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "pytest_trioroom", "-p", "no:cacheprovider"]
    chosen = ["-k", "echo or payloads_arrive or no_app"]
    run = subprocess.run([*command, *chosen], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert re.search(r"1 failed, 3 passed, \d+ deselected, 2 errors", run.stdout), run.stdout
    assert "assert b'*1" in run.stdout, "the assert in the suite does not say what was wrong"
    assert "needs an async test that runs on Trio: pip install pytest-trio and set trio_mode" in run.stdout
    assert "define a fixture trioroom_app that returns it" in run.stdout
