"""Workers that share a port: one room, replaced when they die, and none left whichever way the parent goes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.cli.conftest import DEADLINE, Ends, descendants, open_command, open_remote_peer, run
from trioroom.errors import ConnectionClosed
from trioroom.testing import Peer

TWO = ("--workers", "2", "--backplane", "embedded", "--port", "0")
needs_pidfd = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for foreign processes as Linux can")


@asynccontextmanager
async def open_members(port: int, *pids: int) -> AsyncIterator[dict[int, Peer]]:
    """Members of one room, by the pid of the worker that serves them; in two workers at least, and in ``pids``."""
    members: dict[int, Peer] = {}
    with trio.fail_after(DEADLINE):
        async with AsyncExitStack() as stack:
            while len(members) < 2 or not members.keys() >= {*pids}:  # the kernel spreads connections by a hash
                member = await stack.enter_async_context(open_remote_peer(port, "/pids/a"))
                await member.send("pid?")
                members.setdefault(int(str(await member.receive())), member)
            yield members


async def check_linked(members: dict[int, Peer]) -> None:
    """What any of them says reaches all of them."""
    for pid, member in members.items():
        await member.send(f"said in {pid}")
        assert [await each.receive() for each in members.values()] == [f"said in {pid}"] * len(members)


async def wait_closed(member: Peer) -> int:
    """The code the server closes with."""
    while True:
        try:
            await member.receive()
        except ConnectionClosed as exc:
            return exc.code


# -- serving ---------------------------------------------------------------------------------------


@pytest.mark.redis
async def test_members_on_different_workers_are_in_one_room(pids: Path) -> None:
    async with open_command("serve", "pids:app", *TWO, directory=pids) as command:
        port = await command.wait_port()
        assert "(2 workers; Ctrl-C stops)" in command.output
        assert command.output.count("trioroom serves") == 1
        async with open_members(port) as members:
            assert command.process.pid not in members
            await check_linked(members)


@pytest.mark.redis
@pytest.mark.parametrize(("number", "said"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGTERM, "exit code 0")])
async def test_worker_that_ended_is_replaced(number: signal.Signals, said: str, pids: Path) -> None:
    async with open_command("serve", "pids:app", *TWO, directory=pids) as command:
        port = await command.wait_port()
        async with open_members(port) as members:
            victim = min(members)
        os.kill(victim, number)
        await command.wait_said(rf"worker \d \(pid {victim}\) ended by {said}; the next one starts in 0\.1 s\n")
        successor = int((await command.wait_said(r"worker \d serves \(pid (\d+)\)"))[1])
        async with open_members(port, successor) as members:
            assert victim not in members
            await check_linked(members)
        assert "Traceback" not in command.output


@pytest.mark.redis
async def test_each_worker_has_a_port_of_its_own_if_asked_to(pids: Path) -> None:
    async with open_command("serve", "pids:app", *TWO, "--port-per-worker", directory=pids) as command:
        ports = [
            int((await command.wait_said(rf":(\d+)/ \(worker {number} of 2; Ctrl-C stops\)"))[1]) for number in (1, 2)
        ]
        members: dict[int, Peer] = {}
        with trio.fail_after(DEADLINE):
            async with AsyncExitStack() as stack:
                for port in ports:
                    member = await stack.enter_async_context(open_remote_peer(port, "/pids/a"))
                    await member.send("pid?")
                    members[int(str(await member.receive()))] = member
                assert len(members) == 2
                await check_linked(members)


def test_ports_of_workers_begin_with_the_one_that_is_given() -> None:
    refused = run("demo", "--workers", "9", "--backplane", "embedded", "--port", "65530", "--port-per-worker")
    assert refused.exit_code == 2
    assert "--port 65530 leaves no port for 9 workers; choose a lower one" in refused.output


# -- stopping --------------------------------------------------------------------------------------


@needs_pidfd
@pytest.mark.redis
@pytest.mark.parametrize("way", ["service manager", "careful service manager", "terminal"])
async def test_signal_drains_and_leaves_no_process(way: str, pids: Path) -> None:
    async with open_command("serve", "pids:app", *TWO, directory=pids) as command:
        port = await command.wait_port()
        started = descendants(command.process.pid)
        ends = Ends(started)
        async with open_members(port) as members:
            if way == "terminal":
                os.killpg(command.process.pid, signal.SIGINT)  # to all of its foreground process group
            else:
                command.process.send_signal(signal.SIGTERM)
            if way == "service manager":  # systemd, unless told otherwise, and then the parent signals workers again
                for pid in started:
                    os.kill(pid, signal.SIGTERM)
            assert [await wait_closed(member) for member in members.values()] == [4101] * len(members)
        assert await command.wait_ended() == 0
        await ends.wait()
        assert "stopping 2 workers" in command.output
        assert "Traceback" not in command.output
        assert "worker 1" not in command.output


@needs_pidfd
@pytest.mark.redis
async def test_second_signal_stops_at_once() -> None:
    patience = ("--set", "drain_timeout=600", "--set", "close_timeout=600")
    async with open_command("demo", *TWO, *patience) as command:
        port = await command.wait_port()
        ends = Ends(descendants(command.process.pid))
        async with open_remote_peer(port, "/chat/x") as peer:
            peer.answers = False  # a drain would wait for it
            command.process.send_signal(signal.SIGINT)
            with trio.fail_after(DEADLINE):
                assert await wait_closed(peer) == 4101
            command.process.send_signal(signal.SIGINT)
            assert await command.wait_ended() == 0
        await ends.wait()
        assert "Traceback" not in command.output


@needs_pidfd
@pytest.mark.redis
async def test_nothing_outlives_a_killed_parent_not_even_what_hangs_in_an_import(pids: Path) -> None:
    async with open_command("serve", "pids:app", *TWO, directory=pids) as command:
        port = await command.wait_port()
        (pids / "pids.py").write_text("import time\nprint('hangs', flush=True)\ntime.sleep(600)\n")
        command.process.send_signal(signal.SIGHUP)
        await command.wait_said("hangs")
        started = descendants(command.process.pid)
        assert len(started) >= 5  # two workers, what loads the new ones, Valkey and its guard
        ends = Ends(started)
        async with open_members(port):
            command.process.kill()
            with trio.fail_after(DEADLINE):
                await ends.wait()
        assert "Traceback" not in command.output


@pytest.mark.redis
async def test_signal_before_anybody_is_served_ends_it(pids: Path) -> None:
    source = "import sys, time\nif '--worker' in sys.argv:\n    print('late', flush=True)\n    time.sleep(600)\n"
    (pids / "late.py").write_text(source + (pids / "pids.py").read_text())
    async with open_command("serve", "late:app", *TWO, directory=pids) as command:
        await command.wait_said("late")
        command.process.send_signal(signal.SIGTERM)
        assert await command.wait_ended() == 0
        assert "Traceback" not in command.output


# -- what cannot be --------------------------------------------------------------------------------


def test_workers_without_a_link_are_a_usage_error() -> None:
    result = run("demo", "--workers", "2")
    assert result.exit_code == 2
    complaint = (
        "Error: --workers 2 needs a backplane that links them; add --backplane embedded, or the URL of a broker, such "
        "as redis://HOST\n"
    )
    assert result.output.endswith(complaint)


@pytest.mark.parametrize("shared", [False, True])
def test_busy_port_is_told_in_one_line(shared: bool) -> None:
    with socket.socket() as busy:
        if shared:  # as another trioroom does it: the kernel would let us in
            busy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        result = run("demo", "--workers", "2", "--backplane", "redis://127.0.0.1", "--port", str(port))
    assert result.exit_code == 1
    assert result.output == f"Error: port {port} of 127.0.0.1 is in use; choose another with --port\n"


async def test_worker_that_cannot_start_stops_all_and_says_so_once() -> None:
    async with open_command("demo", "--workers", "3", "--backplane", "pulsar://127.0.0.1", "--port", "0") as command:
        assert await command.wait_ended() == 2
    assert command.output.startswith("Error: --backplane: no backplane is called 'pulsar'; write ")
    assert command.output.count("\n") == 1


@pytest.mark.redis
async def test_application_that_fails_in_workers_only_stops_all(pids: Path) -> None:
    (pids / "shy.py").write_text("import sys\nassert '--worker' not in sys.argv\n" + (pids / "pids.py").read_text())
    async with open_command("serve", "shy:app", *TWO, directory=pids) as command:
        assert await command.wait_ended() == 1
    assert command.output.count("AssertionError") == 1


def test_worker_is_no_option_for_users() -> None:
    command = [sys.executable, "-m", "trioroom", "demo", "--port", "0", "--worker"]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE)
    assert ended.returncode == 2
    assert ended.stderr.endswith("Error: --worker is what trioroom gives to processes it starts; see --workers\n")
