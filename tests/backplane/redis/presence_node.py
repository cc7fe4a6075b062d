"""A node in a process of its own with so many rows in a room: what dies and stops in tests and benchmarks.

    python -m tests.backplane.redis.presence_node URL ROOM ROWS NAME

Says a line once its rows are written, and then each time that what it knows of the others changes: how many rows.
"""

from __future__ import annotations

import sys

import trio

from trioroom.backplane.redis import open_redis
from trioroom.testing.presence_conformance import Watcher


async def main(*arguments: str) -> None:
    """Until killed."""
    url, room, rows, name = arguments
    watcher = Watcher()
    async with open_redis(url) as backplane, backplane.presence.open(room, watcher, 0.1) as seat:
        for number in range(int(rows)):
            seat.put(f"{name} {number}", b'{"name":"somebody"}')
        while True:
            print(watcher.count, flush=True)
            await watcher.wait_changed()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:5])
