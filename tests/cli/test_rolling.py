"""SIGHUP: all workers are replaced by such that run the code of now, and nothing is lost if they cannot."""

from __future__ import annotations

import itertools
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.cli.conftest import DEADLINE, stand_in
from trioroom.cli import keeper, processes, rolling
from trioroom.cli.keeper import StartWorker
from trioroom.cli.rolling import Workers

TWO = ("--workers", "2", "--backplane", "embedded", "--port", "0")

# -- with stand-ins --------------------------------------------------------------------------------

SERVE = ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))", "serve()", "time.sleep(600)")


@pytest.fixture(autouse=True)
def progress_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="trioroom.workers")


class Starters:
    """What each generation starts its workers with, and which generations are there."""

    def __init__(self, *generations: StartWorker) -> None:
        self.open: set[int] = set()
        self._generations = enumerate(generations, start=1)

    @asynccontextmanager
    async def load(self) -> AsyncIterator[_Starter]:
        number, start = next(self._generations)
        self.open.add(number)
        try:
            yield _Starter(start)
        finally:
            self.open.remove(number)


class _Starter:
    def __init__(self, start: StartWorker) -> None:
        self._start = start

    def on_port(self, port: int) -> StartWorker:
        return self._start


@asynccontextmanager
async def open_workers(starters: Starters, count: int = 2) -> AsyncIterator[Workers]:
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            workers = Workers([0] * count, starters.load, nursery)  # type: ignore[arg-type]
            await workers.start_first()
            await workers.start_others()
            yield workers
            workers.retire()


def pids(workers: Workers) -> list[int | None]:
    return [place.keeper.pid for _, place in sorted(workers._places.items())]


async def test_each_place_gets_a_successor_and_the_old_generation_ends(said: trio.MemoryReceiveChannel[str]) -> None:
    starters = Starters(*[stand_in(*SERVE)] * 3)
    async with open_workers(starters, 3) as workers:
        for generation in (2, 3):
            old = pids(workers)
            assert await workers.replace()
            new = pids(workers)
            assert not {*old} & {*new}
            await wait_all_tasks_blocked()
            assert starters.open == {generation}
            lines = [line async for line in _until(said, "restarted")]
            assert lines[-5] == "restarting 3 workers, one by one"
            assert lines[-4:-1] == [
                f"worker {number} of 3: pid {new[number - 1]} serves, pid {old[number - 1]} drains"
                for number in (1, 2, 3)
            ]
    assert starters.open == set()


async def _until(said: trio.MemoryReceiveChannel[str], begins: str) -> AsyncIterator[str]:
    while True:
        line = await said.receive()
        yield line
        if line.startswith(begins):
            return


@pytest.mark.parametrize("line", ["sys.exit(2)", "os.kill(os.getpid(), 9)"])
async def test_workers_stay_when_the_new_ones_do_not_serve(line: str, said: trio.MemoryReceiveChannel[str]) -> None:
    starters = Starters(stand_in(*SERVE), stand_in(line), stand_in(*SERVE))
    async with open_workers(starters) as workers:
        old = pids(workers)
        assert not await workers.replace()
        assert pids(workers) == old
        await wait_all_tasks_blocked()
        assert starters.open == {1}
        lines = [line async for line in _until(said, "restart given up")]
        assert "2 of 2 workers go on as they were; put that right, and send SIGHUP again" in lines[-1]
        assert await workers.replace()
        await wait_all_tasks_blocked()
        assert starters.open == {3}


async def test_new_workers_stay_beside_old_ones_when_a_later_one_does_not_serve(
    said: trio.MemoryReceiveChannel[str],
) -> None:
    attempts = itertools.count(1)

    async def start(lifeline: socket.socket) -> trio.Process:
        process = await stand_in(*(SERVE if next(attempts) == 1 else ["sys.exit(1)"]))(lifeline)
        assert isinstance(process, trio.Process)
        return process

    starters = Starters(stand_in(*SERVE), start, stand_in(*SERVE))
    async with open_workers(starters, 3) as workers:
        old = pids(workers)
        assert not await workers.replace()
        new = pids(workers)
        assert new[0] != old[0]
        assert new[1:] == old[1:]
        assert starters.open == {1, 2}
        assert [line async for line in _until(said, "restart given up")][-1].count("2 of 3 workers go on") == 1
        assert await workers.replace()
        assert not {*pids(workers)} & {*old, *new}
        await wait_all_tasks_blocked()
        assert starters.open == {3}


async def test_successor_that_never_serves_is_given_up_in_time(
    said: trio.MemoryReceiveChannel[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolling, "_SERVE_TIMEOUT", 0.3)
    async with open_workers(Starters(stand_in(*SERVE), stand_in("time.sleep(600)"))) as workers:
        assert not await workers.replace()
        lines = [line async for line in _until(said, "restart given up")]
        assert "worker 1 does not serve within 0.3 s" in lines[-1]


async def test_worker_that_outstays_its_drain_does_not_hold_up_the_restart(
    said: trio.MemoryReceiveChannel[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_SLACK", 0.1)
    monkeypatch.setattr(processes, "_KILL_AFTER", 0.1)
    starters = Starters(stand_in("serve(0.1)", "os.kill(os.getpid(), signal.SIGSTOP)"), stand_in(*SERVE))
    async with open_workers(starters) as workers:
        old = pids(workers)
        assert await workers.replace()
        await wait_all_tasks_blocked()
        assert starters.open == {2}
        lines = [line async for line in _until(said, "restarted")]
        for number, pid in enumerate(old, start=1):
            assert f"worker {number} (pid {pid}) has not ended within 0 s; it has to now" in lines
            assert f"worker {number} (pid {pid}) ended by SIGKILL when told to stop" in lines


async def test_stop_amid_a_restart_ends_old_and_new(said: trio.MemoryReceiveChannel[str], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    os.mkfifo(mark)
    starters = Starters(stand_in(*SERVE), stand_in(f"open({str(mark)!r}, 'w').close()", "time.sleep(600)"))
    results: list[bool] = []

    async def replace(workers: Workers) -> None:
        results.append(await workers.replace())

    async with open_workers(starters) as workers, trio.open_nursery() as nursery:
        nursery.start_soon(replace, workers)
        await trio.to_thread.run_sync(mark.read_text)  # until the new one runs, which never serves
        workers.retire()
    assert results == [False]
    assert starters.open == set()
