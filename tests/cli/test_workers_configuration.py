"""Workers have the configuration of their parent, wherever it comes from."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio

from tests.cli.conftest import DEADLINE, Command, open_command, open_remote_peer
from trioroom.errors import ConnectionClosed

LIMIT = 100
CONFIGURATION = """
app = "pids:app"
host = "{host}"
port = 0
workers = 2
backplane = "{backplane}"

[settings]
max_message_bytes = {limit}
"""
WITH_A_THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"


async def closed_with(port: int, size: int) -> int:
    """The code that a message of this size is answered with."""
    async with open_remote_peer(port, "/pids/a") as peer:
        await peer.send("x" * size)
        while True:
            try:
                await peer.receive()
            except ConnectionClosed as exc:
                return exc.code


async def check_limited(command: Command) -> int:
    port = await command.wait_port()
    assert "(2 workers; Ctrl-C stops)" in command.output
    with trio.fail_after(DEADLINE):
        assert {await closed_with(port, LIMIT + 1) for _ in range(8)} == {1009}  # both workers, almost surely
    return port


@pytest.mark.redis
@pytest.mark.parametrize("new_interpreters", [False, True])
async def test_file_counts_for_workers_and_new_ones_stay_where_the_others_are(
    new_interpreters: bool, pids: Path
) -> None:
    (pids / "server.toml").write_text(CONFIGURATION.format(host="127.0.0.1", backplane="embedded", limit=LIMIT))
    if new_interpreters:
        (pids / "pids.py").write_text(WITH_A_THREAD + (pids / "pids.py").read_text())
    async with open_command("serve", "--config", "server.toml", directory=pids) as command:
        port = await check_limited(command)
        assert ("workers do not share memory" in command.output) == new_interpreters
        (pids / "server.toml").write_text(CONFIGURATION.format(host="127.0.0.2", backplane="memory", limit=LIMIT * 2))
        command.process.send_signal(signal.SIGHUP)
        await command.wait_said("restarted 2 workers")
        assert command.output.count("valkey.sock is up") == 4
        with trio.fail_after(DEADLINE):
            assert await closed_with(port, LIMIT * 2 + 1) == 1009
            async with open_remote_peer(port, "/pids/a") as peer:
                await peer.send("x" * (LIMIT + 1))
                assert await peer.receive() == "x" * (LIMIT + 1)


@pytest.mark.redis
@pytest.mark.parametrize("new_interpreters", [False, True])
async def test_environment_counts_for_workers(
    new_interpreters: bool, pids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("APP", "pids:app"), ("PORT", "0"), ("WORKERS", "2"), ("BACKPLANE", "embedded"),
        ("MAX_MESSAGE_BYTES", str(LIMIT)),
    ):  # fmt: skip
        monkeypatch.setenv(f"TRIOROOM_{name}", value)
    if new_interpreters:
        (pids / "pids.py").write_text(WITH_A_THREAD + (pids / "pids.py").read_text())
    async with open_command("serve", directory=pids) as command:
        await check_limited(command)
