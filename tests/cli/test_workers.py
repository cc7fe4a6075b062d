"""Workers that share a port: one room, replaced when they die, and none left whichever way the parent goes."""

from __future__ import annotations

import itertools
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import click
import pytest
import trio

from tests.cli.conftest import DEADLINE, Ends, descendants, open_command, open_remote_peer, run, serve_options
from trioroom._core.backoff import Backoff
from trioroom.cli import processes, workers
from trioroom.cli.forkserver import WorkerNotStarted
from trioroom.cli.processes import Process
from trioroom.cli.run import Stop
from trioroom.cli.workers import StartWorker, fork_server_command, start_interpreter, worker_command
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
async def test_nothing_outlives_a_killed_parent(pids: Path) -> None:
    async with open_command("serve", "pids:app", *TWO, directory=pids) as command:
        port = await command.wait_port()
        started = descendants(command.process.pid)
        assert len(started) >= 4  # two workers, Valkey and its guard
        ends = Ends(started)
        async with open_members(port):
            command.process.kill()
            with trio.fail_after(5):
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
    complaint = "Error: --workers 2 needs a backplane that links them; add --backplane embedded, or redis://...\n"
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
    async with open_command("demo", "--workers", "3", "--backplane", "nats://127.0.0.1", "--port", "0") as command:
        assert await command.wait_ended() == 2
    assert command.output.startswith("Error: --backplane: no backplane is called 'nats'; write ")
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


def test_overriding_options_come_last_yet_before_what_is_no_option() -> None:
    overriding = ["--worker", "--workers", "1", "--port", "80", "--backplane", "unix:///s"]
    assert worker_command(["demo", "--port", "0"], 80, "unix:///s")[3:] == ["demo", "--port", "0", *overriding]
    assert worker_command(["serve", "--", "a:b"], 80, "unix:///s")[3:] == ["serve", *overriding, "--", "a:b"]


def test_fork_server_is_told_no_port() -> None:
    assert fork_server_command(["demo"], None)[3:] == ["demo", "--worker", "--workers", "1", "--fork-server"]


def test_backplane_that_workers_get_from_where_we_got_it_is_not_among_them() -> None:
    assert worker_command(["demo"], 80, None)[3:] == ["demo", "--worker", "--workers", "1", "--port", "80"]


# -- supervising, with stand-ins for workers ---------------------------------------------------------

PRELUDE = "import os, signal, sys, time\nserve = lambda: os.write(0, b'serving\\n')\n"


def command_of(*lines: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", PRELUDE + "\n".join(lines)]


def stand_in(*lines: str) -> StartWorker:
    return partial(start_interpreter, command_of(*lines))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> trio.MemoryReceiveChannel[str]:
    """What the supervisor logs."""
    send, receive = trio.open_memory_channel[str](100)
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: send.send_nowait(record.getMessage()))
    monkeypatch.setattr(workers.log, "handlers", [handler])
    return receive


NO_FORKS = "stand-ins are interpreters"
TWO_STAND_INS = {"workers": 2, "backplane": "redis://nobody.invalid"}


async def test_server_is_announced_when_all_workers_serve(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workers, "worker_command", lambda *_: command_of("serve()", "os.read(0, 1)"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    announced: list[tuple[object, ...]] = []

    def announce(*what: object) -> None:
        announced.append(what)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(workers, "announce", announce)
    with trio.fail_after(DEADLINE):
        await workers.serve_with_workers(serve_options(port=port, **TWO_STAND_INS), [], NO_FORKS)
    assert announced == [([("127.0.0.1", port)], "http", "2 workers; ")]
    assert capsys.readouterr().out == "stopping 2 workers (Ctrl-C again stops at once)\n"


async def test_signal_while_workers_start_drains_those_that_serve(
    monkeypatch: pytest.MonkeyPatch, said: trio.MemoryReceiveChannel[str], tmp_path: Path
) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    os.mkfifo(second)
    lines = (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))",
        f"if os.path.exists({first!r}): open({second!r}, 'w').close()",
        f"else: open({first!r}, 'w').close(); serve()",
        "time.sleep(600)",
    )
    monkeypatch.setattr(workers, "worker_command", lambda *_: command_of(*lines))
    monkeypatch.setattr(workers, "announce", pytest.fail)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.serve_with_workers, serve_options(**TWO_STAND_INS), [], NO_FORKS)
            await trio.to_thread.run_sync(Path(second).read_text)  # until the second one runs, which never serves
            signal.raise_signal(signal.SIGINT)
    assert said.receive_nowait() == f"workers do not share memory, as {NO_FORKS}"
    for _ in range(2):
        while "serves" in (message := said.receive_nowait()):
            pass
        assert message.endswith("ended by exit code 9 when told to stop")  # and not by being hurried


async def test_worker_that_has_served_is_replaced_whatever_its_exit_code(
    said: trio.MemoryReceiveChannel[str], nursery: trio.Nursery
) -> None:
    stop = Stop()
    with trio.fail_after(DEADLINE):
        await nursery.start(workers._keep_worker, stand_in("serve()", "sys.exit(1)"), stop, 7)
        delays: list[float] = []
        while len(delays) < 3:
            if found := re.fullmatch(
                r"worker 7 \(pid \d+\) ended by exit code 1; the next one starts in (.*) s", await said.receive()
            ):
                delays.append(float(found[1]))
    assert delays == sorted(delays)
    assert delays[0] < delays[2]


async def test_stop_ends_the_wait_for_the_next_worker(
    said: trio.MemoryReceiveChannel[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "Backoff", lambda: Backoff(first=3600.0, most=3600.0))
    stop = Stop()
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            await nursery.start(workers._keep_worker, stand_in("serve()"), stop, 1)
            assert "ended by exit code 0" in await said.receive()
            stop.begun.set()


@pytest.mark.parametrize("code", [1, 2])
async def test_worker_that_never_served_for_a_known_reason_is_given_up(code: int) -> None:
    with trio.fail_after(DEADLINE):
        with pytest.raises(click.exceptions.Exit) as raised:
            await workers._keep_worker(stand_in(f"sys.exit({code})"), Stop(), 1, task_status=trio.TASK_STATUS_IGNORED)
    assert raised.value.exit_code == code


async def test_worker_that_crashed_before_it_served_is_tried_again(
    said: trio.MemoryReceiveChannel[str], nursery: trio.Nursery, tmp_path: Path
) -> None:
    crash_once = f"if not os.path.exists(m := {str(tmp_path / 'mark')!r}): open(m, 'w'); os.kill(os.getpid(), 9)"
    with trio.fail_after(DEADLINE):
        await nursery.start(workers._keep_worker, stand_in(crash_once, "serve()", "os.read(0, 1)"), Stop(), 1)
    assert "ended by SIGKILL" in said.receive_nowait()


async def test_worker_that_cannot_be_forked_is_tried_again(
    said: trio.MemoryReceiveChannel[str], nursery: trio.Nursery
) -> None:
    attempts = itertools.count()

    async def start(lifeline: socket.socket) -> Process:
        if next(attempts) == 0:
            raise WorkerNotStarted("cannot fork: no room", None)
        return await stand_in("serve()", "os.read(0, 1)")(lifeline)

    with trio.fail_after(DEADLINE):
        await nursery.start(workers._keep_worker, start, Stop(), 3)
    assert said.receive_nowait() == "worker 3 does not start: cannot fork: no room; the next one starts in 0.1 s"


async def test_worker_that_is_told_to_stop_before_it_served_is_not_waited_for(tmp_path: Path) -> None:
    stop = Stop()
    mark = tmp_path / "mark"
    os.mkfifo(mark)
    slow = stand_in(f"open({str(mark)!r}, 'w').close()", "time.sleep(600)")
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nursery.start, workers._keep_worker, slow, stop, 1)
            await trio.to_thread.run_sync(mark.read_text)  # until it runs
            stop.begun.set()


async def test_worker_that_fails_when_told_to_stop_is_mentioned(said: trio.MemoryReceiveChannel[str]) -> None:
    stop = Stop()
    fail = stand_in("signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))", "serve()", "time.sleep(600)")
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            await nursery.start(workers._keep_worker, fail, stop, 1)
            stop.begun.set()
    assert said.receive_nowait().endswith("ended by exit code 3 when told to stop")


async def test_deaf_worker_is_killed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_KILL_AFTER", 0.05)
    deaf = stand_in("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "serve()", "time.sleep(600)")
    served: list[int] = []
    with trio.fail_after(DEADLINE), trio.CancelScope() as scope:

        def serves(pid: int) -> None:
            served.append(pid)
            scope.cancel()

        await workers._run_worker(deaf, Stop(), 1, serves)
    with pytest.raises(ProcessLookupError):
        os.kill(served[0], 0)
