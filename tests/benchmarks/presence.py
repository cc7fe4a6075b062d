"""What presence costs: memory for a user here and for a row of another server, and time for joins, diffs and pages.

    python tests/benchmarks/presence.py [--users N] [--info BYTES]

No sockets: one table, as each active room has one. Each user has an id and an info of its own, as off the wire.
"""

from __future__ import annotations

import argparse
import platform
import time
import tracemalloc
from collections.abc import Callable

import msgspec

from trioroom._core.presence import Presence, PresenceTable
from trioroom._net.room_presence import presents
from trioroom._wire import envelopes


def rows_of(count: int, size: int, name: str) -> dict[str, bytes]:
    """Fresh objects, none of them shared."""
    pad = size - len('{"name":""}') - 8
    return {f"{name}{number:012d}": b'{"name":"%08d%s"}' % (number, b"x" * max(0, pad)) for number in range(count)}


def memory_of(fill: Callable[[], PresenceTable], count: int) -> float:
    """Bytes for each user that ``fill`` puts into a table."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    table = fill()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert table.count == count
    return (after - before) / count


def seconds_of(fn: Callable[[], object]) -> float:
    """The best of five."""
    best = 1e9
    for _ in range(5):
        start = time.perf_counter()
        fn()
        best = min(best, time.perf_counter() - start)
    return best


def main(count: int, size: int) -> None:
    """Measure and print."""

    def here() -> PresenceTable:
        table = PresenceTable(Presence())
        for user, info in rows_of(count, size, "user").items():
            table.join(user, info)
        table.announce(0.0)
        return table

    def elsewhere() -> PresenceTable:
        table = PresenceTable(Presence())
        table.rows_changed("seat", rows_of(count, size, "user"), ())
        table.announce(0.0)
        return table

    print(f"Python {platform.python_version()}, {count} users with an info of {size} bytes")
    print(f"a user on this server:    {memory_of(here, count):6.0f} bytes, id and info included")
    print(f"a row of another server:  {memory_of(elsewhere, count):6.0f} bytes")
    table = here()
    print(f"join, announce (per user):  {seconds_of(here) / count * 1e6:6.2f} us")
    table.page(1, None)  # sorts
    print(f"page of 100:                {seconds_of(lambda: table.page(100, None)) * 1e6:6.1f} us")
    rows = list(rows_of(1000, size, "user").items())
    push = envelopes.Presence("chat/lobby", 1, count, presents(rows), [])
    encoding = seconds_of(lambda: msgspec.json.encode(envelopes.Presence("chat/lobby", 1, count, presents(rows), [])))
    print(f"push of 1000 that joined:   {encoding * 1e6:6.0f} us, {len(msgspec.json.encode(push))} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--info", type=int, default=40)
    arguments = parser.parse_args()
    main(arguments.users, arguments.info)
