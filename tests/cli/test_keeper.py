"""How workers are started, watched, replaced and ended: with stand-ins, which do at once what workers do rarely."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
from pathlib import Path

import pytest
import trio

from tests.cli.conftest import DEADLINE, command_of, serve_options, stand_in
from trioroom._core.backoff import Backoff
from trioroom.cli import keeper, processes, workers
from trioroom.cli.forkserver import WorkerNotStarted
from trioroom.cli.keeper import Keeper, NeverServed
from trioroom.cli.processes import Process
from trioroom.cli.starting import Commands, start_interpreter

NO_FORKS = "stand-ins are interpreters"
TWO_STAND_INS = {"workers": 2, "backplane": "redis://nobody.invalid"}


async def test_server_is_announced_when_all_workers_serve(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Commands, "worker", lambda *_: command_of("serve()", "os.read(0, 1)"))
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
    monkeypatch.setattr(Commands, "worker", lambda *_: command_of(*lines))
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
    with trio.fail_after(DEADLINE):
        await nursery.start(Keeper(7, stand_in("serve()", "sys.exit(1)")).run)
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
    monkeypatch.setattr(keeper, "Backoff", lambda: Backoff(first=3600.0, most=3600.0))
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            kept = Keeper(1, stand_in("serve()"))
            await nursery.start(kept.run)
            assert "ended by exit code 0" in await said.receive()
            kept.retire()


@pytest.mark.parametrize("code", [1, 2])
async def test_worker_that_never_served_for_a_known_reason_is_given_up(code: int) -> None:
    with trio.fail_after(DEADLINE):
        with pytest.raises(NeverServed, match=rf"worker 1 \(pid \d+\) ended by exit code {code}") as raised:
            await Keeper(1, stand_in(f"sys.exit({code})")).run()
    assert raised.value.code == code


@pytest.mark.parametrize("line", ["os.kill(os.getpid(), 9)", "sys.exit(0)", "sys.exit(1)"])
async def test_one_try_may_be_all(line: str) -> None:
    kept = Keeper(1, stand_in(line), once=True)
    with trio.fail_after(DEADLINE):
        with pytest.raises(NeverServed):
            await kept.run()
        await kept.ended.wait()


async def test_worker_that_crashed_before_it_served_is_tried_again(
    said: trio.MemoryReceiveChannel[str], nursery: trio.Nursery, tmp_path: Path
) -> None:
    crash_once = f"if not os.path.exists(m := {str(tmp_path / 'mark')!r}): open(m, 'w'); os.kill(os.getpid(), 9)"
    with trio.fail_after(DEADLINE):
        await nursery.start(Keeper(1, stand_in(crash_once, "serve()", "os.read(0, 1)")).run)
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
        await nursery.start(Keeper(3, start).run)
    assert said.receive_nowait() == "worker 3 does not start: cannot fork: no room; the next one starts in 0.1 s"


async def test_worker_is_tried_again_when_the_directory_of_the_application_is_gone(
    said: trio.MemoryReceiveChannel[str], nursery: trio.Nursery, tmp_path: Path
) -> None:
    directory = tmp_path / "current"

    async def start(lifeline: socket.socket) -> Process:
        try:
            return await start_interpreter(command_of("serve()", "os.read(0, 1)"), str(directory), lifeline)
        finally:
            directory.mkdir(exist_ok=True)

    with trio.fail_after(DEADLINE):
        await nursery.start(Keeper(4, start).run)
    failed = said.receive_nowait()
    assert failed.startswith("worker 4 does not start: [Errno 2] No such file or directory: ")
    assert str(directory) in failed


async def test_worker_that_is_told_to_stop_before_it_served_is_not_waited_for(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    os.mkfifo(mark)
    slow = stand_in(f"open({str(mark)!r}, 'w').close()", "time.sleep(600)")
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            kept = Keeper(1, slow)
            nursery.start_soon(nursery.start, kept.run)
            await trio.to_thread.run_sync(mark.read_text)  # until it runs
            kept.retire()


async def test_worker_that_is_not_wanted_any_more_is_not_started() -> None:
    async def start(lifeline: socket.socket) -> Process:
        pytest.fail("it was started")

    kept = Keeper(1, start)
    kept.retire()
    async with trio.open_nursery() as nursery:
        await nursery.start(kept.run)
    assert kept.ended.is_set()


async def test_worker_that_fails_when_told_to_stop_is_mentioned(said: trio.MemoryReceiveChannel[str]) -> None:
    fail = stand_in("signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))", "serve()", "time.sleep(600)")
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            kept = Keeper(1, fail)
            await nursery.start(kept.run)
            kept.retire()
    assert said.receive_nowait().endswith("ended by exit code 3 when told to stop")


async def test_deaf_worker_is_killed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_KILL_AFTER", 0.05)
    deaf = stand_in("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "serve()", "time.sleep(600)")
    kept = Keeper(1, deaf)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            await nursery.start(kept.run)
            nursery.cancel_scope.cancel()
    assert kept.pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(kept.pid, 0)
