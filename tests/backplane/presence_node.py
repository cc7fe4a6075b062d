"""A node in a process of its own with so many rows in a room: what dies and stops in tests and benchmarks.

    python -m tests.backplane.presence_node URL ROOM ROWS NAME

Says a line once its rows are written, and then each time that what it knows of the others changes: how many rows.
"""

from __future__ import annotations

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


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:5])
