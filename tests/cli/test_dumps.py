"""SIGUSR1: every process writes its tree of tasks and goes on; one whose loop is stuck says where."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from tests.cli.conftest import DEADLINE, descendants, open_command, open_remote_peer
from trioroom.cli import dumps
from trioroom.cli.dumps import DUMP_SIGNAL, ignore_dump_signal, open_dumps

ROOMS = """
import time
import trioroom

class Rooms(trioroom.Room):
    async def on_message(self, member, message):
        if message.data == "stick":
            time.sleep(2.5)
        member.send("done")

app = trioroom.App()
app.route("chat/{name}", Rooms)
"""


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    (tmp_path / "rooms.py").write_text(ROOMS)
    return tmp_path


async def test_tree_of_a_server_with_a_thousand_connections_fits_a_screen(rooms: Path) -> None:
    no_pings = ("--set", "ping_interval=inf")  # which nobody would answer, and the last one may take its time to come
    command_line = ("serve", "rooms:app", "--port", "0", "--log-level", "error", *no_pings)
    async with open_command(*command_line, directory=rooms) as command:
        port = await command.wait_port()
        async with AsyncExitStack() as stack:
            with trio.fail_after(DEADLINE):
                for number in range(1_000):
                    peer = await stack.enter_async_context(open_remote_peer(port, f"/chat/{number % 30}"))
                await peer.send("x")
                assert await peer.receive() == "done"
            command.process.send_signal(DUMP_SIGNAL)
            await command.wait_said(
                r"tasks, counted in \d\.\d\d s\n(.*\n)+ *room ×30 \(chat/\d+, chat/\d+, chat/\d+, …\)"
            )
            await peer.send("x")
            with trio.fail_after(DEADLINE):
                assert await peer.receive() == "done"
        command.process.send_signal(signal.SIGTERM)
        assert await command.wait_ended() == 0
    tree = command.output.partition(" tasks, counted in")[2].splitlines()
    assert len(tree) < 40
    assert re.search(r"connection ×1,000  _net/connection\.py:\d+ Connection\._read → wait_task_rescheduled", str(tree))
    for task in ("heartbeat", "readiness", "accept", "hub", "dumps"):
        assert any(line.strip().startswith(f"{task}  ") for line in tree), task
    assert "stacks" not in command.output
    assert "thread" not in command.output


@pytest.mark.redis
async def test_parent_passes_it_on_to_its_workers(rooms: Path) -> None:
    options = ("--workers", "2", "--backplane", "embedded", "--port", "0", "--log-format", "json")
    async with open_command("serve", "rooms:app", *options, directory=rooms) as command:
        await command.wait_said("trioroom serves")
        command.process.send_signal(DUMP_SIGNAL)
        with trio.fail_after(DEADLINE):
            while command.output.count('"tree"') < 3:
                await command.wait_said(rf'(?s)("tree".*){{{command.output.count(chr(34) + "tree" + chr(34)) + 1}}}\n')
        command.process.send_signal(signal.SIGTERM)
        assert await command.wait_ended() == 0
    records = [json.loads(line) for line in command.output.splitlines()]
    trees = {record["process"]: record for record in records if "tree" in record}
    assert len(trees) == 3
    assert "readiness" not in trees.pop(command.process.pid)["tree"]
    for record in trees.values():
        assert record["logger"] == "trioroom.tasks"
        assert re.fullmatch(r"\d+ tasks, counted in \d\.\d\d s", record["message"])
        assert re.search(r"^ *readiness  _net/readiness\.py:\d+ ", record["tree"], re.M)


@pytest.mark.redis
async def test_signal_to_every_process_ends_none(rooms: Path) -> None:
    """As a service manager may send it, and while it starts. Valkey is left out: what it makes of it is not ours."""
    source = "import os, signal\nos.kill(os.getpid(), signal.SIGUSR1)\n"
    (rooms / "rooms.py").write_text(source + (rooms / "rooms.py").read_text())
    options = ("--workers", "2", "--backplane", "embedded", "--port", "0")
    async with open_command("serve", "rooms:app", *options, directory=rooms) as command:
        port = await command.wait_port()
        for pid in descendants(command.process.pid):
            if b"-m\0trioroom" in await trio.Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, DUMP_SIGNAL)
        await command.wait_said(r"(?s)(tasks, counted in.*){2}")
        async with open_remote_peer(port, "/chat/a") as peer:
            await peer.send("x")
            assert await peer.receive() == "done"
        assert "ended by" not in command.output


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_loop_that_is_stuck_is_told_with_its_stack_and_the_tree_follows(log_format: str, rooms: Path) -> None:
    options = ("--port", "0", "--log-format", log_format)
    async with open_command("serve", "rooms:app", *options, directory=rooms) as command:
        port = int((await command.wait_said(r"trioroom serves http://127\.0\.0\.1:(\d+)/"))[1])
        async with open_remote_peer(port, "/chat/a") as peer:
            await peer.send("stick")
            await trio.sleep(0.2)  # nothing else tells that it is stuck now
            command.process.send_signal(DUMP_SIGNAL)
            await command.wait_said(
                r"the event loop has not answered for 1 s(?s:.*)in on_message\b(?s:.*)time\.sleep\(2\.5\)"
            )
            assert "tasks, counted in" not in command.output
            await command.wait_said("tasks, counted in")
            with trio.fail_after(DEADLINE):
                assert await peer.receive() == "done"
    if log_format == "json":
        (record,) = [each for each in map(json.loads, command.output.splitlines()) if "stacks" in each]
        assert record["stacks"].startswith("thread MainThread:\n")


# -- in this process -------------------------------------------------------------------------------


async def test_signals_that_come_together_are_answered_together(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[int] = []
    async with open_dumps(lambda: passed.append(1)):
        for _ in range(50):
            signal.raise_signal(DUMP_SIGNAL)
        assert sum(thread.name == "trioroom dumps" for thread in threading.enumerate()) <= 1
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(caplog.records) == len(passed) == 1
        signal.raise_signal(DUMP_SIGNAL)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(caplog.records) == len(passed) == 2


async def test_application_that_has_a_handler_keeps_it() -> None:
    heard: list[int] = []
    before = signal.signal(DUMP_SIGNAL, lambda number, frame: heard.append(number))
    try:
        ignore_dump_signal()
        async with open_dumps():
            signal.raise_signal(DUMP_SIGNAL)
        assert heard == [DUMP_SIGNAL]
    finally:
        signal.signal(DUMP_SIGNAL, before)


async def test_handler_is_gone_afterwards_and_nobody_watches() -> None:
    before = signal.getsignal(DUMP_SIGNAL)
    async with open_dumps():
        assert signal.getsignal(DUMP_SIGNAL) != before
        signal.raise_signal(DUMP_SIGNAL)
    assert signal.getsignal(DUMP_SIGNAL) == before
    for thread in threading.enumerate():
        if thread.name == "trioroom dumps":
            thread.join(dumps._ANSWER_TIMEOUT / 2)
            assert not thread.is_alive()
