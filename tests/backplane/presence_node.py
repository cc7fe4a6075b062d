"""A node in a process of its own with so many rows in a room: what dies and stops in tests and benchmarks.

    python -m tests.backplane.presence_node URL ROOM ROWS NAME

Says a line once its rows are written, and then each time that what it knows of the others changes: how many rows.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from trioroom.backplane.open import open_backplane
from trioroom.testing.presence_conformance import Watcher


async def main(*arguments: str) -> None:
    """Until killed."""
    url, room, rows, name = arguments
    watcher = Watcher()
    async with open_backplane(url) as backplane:
        assert backplane.presence is not None
        async with backplane.presence.open(room, watcher, 0.1) as seat:
            for number in range(int(rows)):
                seat.put(f"{name} {number}", b'{"name":"somebody"}')
            while True:
                print(watcher.count, flush=True)
                await watcher.wait_changed()


@asynccontextmanager
async def open_process(url: str, room: str, rows: int, name: str) -> AsyncIterator[trio.Process]:
    """Such a node; killed when the context is left."""
    command = [sys.executable, "-m", "tests.backplane.presence_node", url, room, str(rows), name]
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(_run_process, command)
        yield process
        process.kill()


async def _run_process(command: list[str], *, task_status: trio.TaskStatus[trio.Process]) -> None:
    process = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL)
    task_status.started(process)
    await process.wait()


async def rows_go_at_once(watcher: Watcher, within: float) -> None:
    """Of a process that was killed: all together, told once, and within so many seconds."""
    began = trio.current_time()
    counts = set()
    while watcher.count:
        await watcher.wait_changed()
        counts.add(watcher.count)
    assert trio.current_time() - began < within
    assert counts == {0}, "not all at once"
    assert len(watcher.gone) == 1


async def stop_longer_than_its_lease(process: trio.Process, watcher: Watcher, lease: float, within: float) -> None:
    """Its rows go, and come back under another id within so many seconds."""
    rows, [before] = watcher.count, watcher.seats
    process.send_signal(signal.SIGSTOP)
    await watcher.wait_count(0)
    await trio.sleep(lease)
    process.send_signal(signal.SIGCONT)
    began = trio.current_time()
    await watcher.wait_count(rows)
    assert trio.current_time() - began < within
    assert watcher.gone == [before]
    [after] = [name for name, users in watcher.seats.items() if users]
    assert after.partition(".")[0] != before.partition(".")[0], "an id was used twice"


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:5])
