"""A node in a process of its own with so many rows in a room: what dies and stops in tests and benchmarks.

    python -m tests.backplane.redis.presence_node URL ROOM ROWS NAME

Says a line once its rows are written, and then each time that what it knows of the others changes: how many rows.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping

import trio

from trioroom.backplane.redis import open_redis


class Table:
    """What a seat is told of the others, and each change of it in a line, by ``changed``."""

    def __init__(self) -> None:
        self.seats: dict[str, dict[str, bytes]] = {}
        self.gone: list[str] = []
        self.changed = trio.Event()

    @property
    def rows(self) -> int:
        """Of all others."""
        return sum(map(len, self.seats.values()))

    def rows_changed(self, seat: str, put: Mapping[str, bytes], removed: Collection[str]) -> None:
        rows = self.seats.setdefault(seat, {})
        rows.update(put)
        for user in removed:
            rows.pop(user, None)
        self._tell()

    def seat_gone(self, seat: str) -> None:
        self.gone.append(seat)
        self.seats.pop(seat, None)
        self._tell()

    def resynced(self, seats: Mapping[str, Mapping[str, bytes]]) -> None:
        self.seats = {seat: dict(rows) for seat, rows in seats.items()}
        self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def wait_rows(self, count: int) -> None:
        """Until the others have so many."""
        while self.rows != count:
            await self.changed.wait()


async def main(*arguments: str) -> None:
    """Until killed."""
    url, room, rows, name = arguments
    table = Table()
    async with open_redis(url) as backplane, backplane.presence.open(room, table, 0.1) as seat:
        for number in range(int(rows)):
            seat.put(f"{name} {number}", b'{"name":"somebody"}')
        while True:
            print(table.rows, flush=True)
            await table.changed.wait()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:5])
