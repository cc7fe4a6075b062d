"""What one more active room costs: members in a room each, beside as many in one room.

    python -m tests.benchmarks.room_memory [--rooms 4000] [--lines 0]

All of them are idle. The difference is the room's own: the member is there in both cases.
"""

from __future__ import annotations

import argparse
import platform

from tests.benchmarks.allocations import Look, grown, look, observed, show
from tests.benchmarks.raw_peers import Swarm

WARM_UP = 100  # members and rooms that come first, so that what comes once for all is there


def measure(rooms: int, *, apart: bool, trace: bool) -> Look:
    """What so many members add to a server, in rooms of their own or in one."""
    with observed(trace=trace) as (port, pipe):
        swarm = Swarm()
        for number in range(WARM_UP):
            swarm.join(port, f"/chat/warm-{number if apart else 0}", 1)
        before = look(pipe)
        for number in range(rooms):
            swarm.join(port, f"/chat/{number if apart else 0}", 1)
        found = grown(before, look(pipe))
        swarm.close()
        return found


def main() -> None:
    """Print the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", type=int, default=4_000)
    parser.add_argument("--lines", type=int, default=0, help="show so many lines of code too (default: 0)")
    arguments = parser.parse_args()
    rooms = arguments.rooms
    print(f"{platform.platform()}, Python {platform.python_version()}, {rooms} rooms, bytes and objects of one")
    apart, together = (measure(rooms, apart=apart, trace=False) for apart in (True, False))
    own = grown(measure(rooms, apart=False, trace=True), measure(rooms, apart=True, trace=True))
    show(own, apart.resident - together.resident, rooms, arguments.lines)


if __name__ == "__main__":
    main()
