"""Forks as workers: like new interpreters to themselves and to their parent, whatever becomes of the fork server."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.cli.conftest import (
    DEADLINE,
    NO_FORKS,
    STARTS_A_THREAD,
    Command,
    Ends,
    descendants,
    open_command,
    open_remote_peer,
)
from trioroom.cli import forkserver
from trioroom.cli.forkserver import ForkServer, WorkerNotStarted, open_fork_server
from trioroom.cli.processes import end_process

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="workers are forks where there are pidfds")

# -- with stand-ins for applications -----------------------------------------------------------------

PRELUDE = """
import os, random, signal, sys, time
from trioroom.cli import forkserver
{before}
port = forkserver.fork_workers()
if port is None:
    sys.exit()
say = lambda what: os.write(0, str(what).encode())
"""


@asynccontextmanager
async def open_stand_in(*lines: str, before: str = "") -> AsyncIterator[ForkServer]:
    """A fork server that runs ``before`` as its application; ``lines`` are its workers, who may ``say`` something."""
    with trio.fail_after(DEADLINE):
        script = PRELUDE.format(before=before) + "\n".join(lines)
        async with open_fork_server([sys.executable, "-c", script]) as fork_server:
            yield fork_server


async def hear(lifeline: socket.socket) -> str:
    await trio.lowlevel.wait_readable(lifeline)
    return lifeline.recv(4096).decode()


async def said_by_workers(fork_server: ForkServer, count: int) -> list[str]:
    """What each of so many workers says before it ends."""
    said = []
    for number in range(count):
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                worker = await fork_server.fork(number, theirs)
            said.append(await hear(ours))
        assert await worker.wait() == 0
    return said


async def test_worker_has_its_port_and_its_pid_is_true() -> None:
    async with open_stand_in("say(f'{port} {os.getpid()}')", "os.read(0, 1)") as fork_server:
        for port in (7, 8):
            ours, theirs = socket.socketpair()
            with theirs:
                worker = await fork_server.fork(port, theirs)
            assert await hear(ours) == f"{port} {worker.pid}"
            ours.close()
            assert await worker.wait() == 0


async def test_worker_has_nothing_but_standard_descriptors_and_a_session_of_its_own() -> None:
    # Of those that os.listdir shows, the highest is the one it has open itself.
    lines = ("files = sorted(map(int, os.listdir('/proc/self/fd')))[:-1]", "say((files, os.getsid(0) == os.getpid()))")
    async with open_stand_in(*lines) as fork_server:
        ours, theirs = socket.socketpair()
        lasting = await fork_server.fork(0, theirs)  # of which the next ones might inherit something
        assert await said_by_workers(fork_server, 2) == ["([0, 1, 2], True)"] * 2
        for end in (ours, theirs):
            end.close()
        await lasting.wait()


async def test_workers_draw_different_random_numbers() -> None:
    async with open_stand_in("say(random.random())", before="random.seed(1)") as fork_server:
        assert len({*await said_by_workers(fork_server, 3), str(random.Random(1).random())}) == 4


@pytest.mark.parametrize(
    ("line", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", -9), ("os.kill(os.getpid(), 15)", -15)]
)
async def test_return_code_is_that_of_the_worker(line: str, code: int) -> None:
    async with open_stand_in(line) as fork_server:
        with socket.socket() as lifeline:
            worker = await fork_server.fork(0, lifeline)
        assert await worker.wait() == code
        assert await worker.wait() == code
        worker.terminate()  # nobody


async def test_signal_right_after_the_fork_is_not_lost() -> None:
    async with open_stand_in("time.sleep(600)") as fork_server:
        with socket.socket() as lifeline:
            for _ in range(50):
                worker = await fork_server.fork(0, lifeline)
                worker.terminate()
                assert await worker.wait() == -signal.SIGTERM


async def test_fork_server_that_does_not_load_says_so() -> None:
    async with open_stand_in(before="sys.exit(2)") as fork_server:
        with socket.socket() as lifeline:
            with pytest.raises(WorkerNotStarted, match=r"the fork server \(pid \d+\) ended by exit code 2") as raised:
                await fork_server.fork(0, lifeline)
    assert raised.value.code == 2


FAIL_ONCE = """
def fail():
    os.fork = fork
    raise BlockingIOError(11, "")
fork, os.fork = os.fork, fail
"""


async def test_lack_of_processes_is_told_and_the_fork_server_stays() -> None:
    async with open_stand_in(
        "say(os.getppid())", before=FAIL_ONCE
    ) as fork_server:  # no limit of processes holds for root
        with socket.socket() as lifeline:
            with pytest.raises(WorkerNotStarted, match=f"cannot fork: {os.strerror(11)}"):
                await fork_server.fork(0, lifeline)
        parents = {int(said) for said in await said_by_workers(fork_server, 2)}
        assert parents <= descendants(os.getpid())
        assert len(parents) == 1


async def test_cancelled_fork_leaves_nobody() -> None:
    async with open_stand_in("say(f'{os.getppid()} {os.getpid()}')", "os.read(0, 1)") as fork_server:
        stopped = int((await said_by_workers(fork_server, 1))[0].split()[0])
        os.kill(stopped, signal.SIGSTOP)  # so that it reads of the worker when nobody waits for that any more
        ours, theirs = socket.socketpair()
        with ours:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fork_server.fork, 0, theirs)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            theirs.close()
            os.kill(stopped, signal.SIGCONT)
            parent, pid = map(int, (await hear(ours)).split())
            assert parent == stopped
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_worker_that_is_left_over_is_killed_in_time() -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); say('deaf'); time.sleep(600)"
    async with open_stand_in(deaf, before="forkserver._KILL_AFTER = 0.05") as fork_server:
        ours, theirs = socket.socketpair()
        with theirs:
            worker = await fork_server.fork(0, theirs)
        with ours:
            assert await hear(ours) == "deaf"
    assert await worker.wait() == -signal.SIGKILL


async def test_stuck_fork_server_does_not_hold_up_the_end_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forkserver, "_REPORT_TIMEOUT", 0.05)
    async with open_stand_in("say(os.getppid()); time.sleep(600)") as fork_server:
        ours, theirs = socket.socketpair()
        with theirs:
            worker = await fork_server.fork(0, theirs)
        with ours:
            parent = int(await hear(ours))
            os.kill(parent, signal.SIGSTOP)
            await end_process(worker, ours.close)
        os.kill(parent, signal.SIGCONT)
    assert await worker.wait() is None


# -- with applications -------------------------------------------------------------------------------

TWO = ("--workers", "2", "--backplane", "embedded", "--port", "0", "--log-level", "debug")


async def pid_of_worker(command: Command, number: int) -> int:
    return int((await command.wait_said(rf"worker {number} serves \(pid (\d+)\)"))[1])


async def replace(command: Command, pid: int) -> tuple[str, int]:
    """Kill this worker; what it is said to have ended by, and the pid of its successor."""
    os.kill(pid, signal.SIGKILL)
    ended = await command.wait_said(rf"worker (\d) \(pid {pid}\) ended by (.*); the next one starts")
    successor = await command.wait_said(rf"(?s)\(pid {pid}\) ended.*worker {ended[1]} serves \(pid (\d+)\)")
    return ended[2], int(successor[1])


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def ask_pid(port: int) -> int:
    async with open_remote_peer(port, "/pids/a") as member:
        await member.send("pid?")
        return int(str(await member.receive()))


@pytest.mark.redis
async def test_workers_are_forks_of_one_process_that_loads_once(pids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(
        "PYTHONUNBUFFERED", raising=False
    )  # what is printed waits in a buffer, of which forks have copies
    (pids / "chatty.py").write_text("print('loaded')\n" + (pids / "pids.py").read_text())
    async with open_command("serve", "chatty:app", *TWO, directory=pids) as command:
        port = await command.wait_port()
        of_workers = {await pid_of_worker(command, number) for number in (1, 2)}
        (fork_server,) = {parent_of(pid) for pid in of_workers}
        assert parent_of(fork_server) == command.process.pid
        assert {os.getsid(pid) for pid in of_workers} == of_workers
        assert await ask_pid(port) in of_workers
        command.process.send_signal(signal.SIGTERM)
        assert await command.wait_ended() == 0
    assert (
        command.output.count("loaded") == 2
    )  # by the parent, which looks whether there is an app, and by the fork server


@pytest.mark.redis
async def test_fork_server_outlives_signals_that_are_not_for_it(pids: Path) -> None:
    async with open_command("serve", "pids:app", *TWO, directory=pids) as command:
        await command.wait_port()
        first = await pid_of_worker(command, 1)
        fork_server = parent_of(first)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(fork_server, number)
        ended_by, successor = await replace(command, first)
        assert ended_by == "SIGKILL"
        assert parent_of(successor) == fork_server


@pytest.mark.redis
async def test_dead_fork_server_takes_no_worker_with_it_and_is_replaced(pids: Path) -> None:
    async with open_command("serve", "pids:app", *TWO, directory=pids) as command:
        port = await command.wait_port()
        first, second = [await pid_of_worker(command, number) for number in (1, 2)]
        fork_server = parent_of(first)
        os.kill(fork_server, signal.SIGKILL)
        await command.wait_said(rf"the fork server \(pid {fork_server}\) ended by SIGKILL; its workers go on")
        assert await ask_pid(port) in (first, second)
        ended_by, successor = await replace(command, first)
        assert ended_by == "a cause that the fork server took with it"
        assert parent_of(successor) not in (command.process.pid, fork_server)
        ended_by, _ = await replace(command, successor)
        assert ended_by == "SIGKILL"
        ends = Ends({*descendants(command.process.pid), second})
        command.process.send_signal(signal.SIGTERM)
        assert await command.wait_ended() == 0
        await ends.wait()
        assert "when told to stop" not in command.output
        assert "Traceback" not in command.output


@pytest.mark.redis
async def test_application_with_threads_gets_workers_that_are_no_forks(pids: Path) -> None:
    (pids / "busy.py").write_text(STARTS_A_THREAD + (pids / "pids.py").read_text())
    async with open_command("serve", "busy:app", *TWO, directory=pids) as command:
        await command.wait_port()
        assert parent_of(await pid_of_worker(command, 2)) == command.process.pid
        assert NO_FORKS in command.output
        command.process.send_signal(signal.SIGTERM)
        assert await command.wait_ended() == 0


def test_fork_server_is_no_option_for_users() -> None:
    command = [sys.executable, "-m", "trioroom", "demo", "--port", "0", "--fork-server"]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE)
    assert ended.returncode == 2
    assert ended.stderr.endswith("Error: --fork-server is what trioroom gives to a process it starts; see --workers\n")
