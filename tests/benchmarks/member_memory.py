"""Where each byte of an idle member goes, and whether members that have gone leave something behind.

    python -m tests.benchmarks.member_memory [--members 4000] [--rounds 10] [--coming 2000] [--lines 0]

First so many members join one room and stay: the table shows what one of them takes. Then, of a server that does not
trace, so many come and go in each round. The first rounds warm the allocators up; from the middle on nothing is to
grow. What the kernel holds is no part of this.
"""

from __future__ import annotations

import argparse
import platform
from multiprocessing.connection import Connection

from tests.benchmarks.allocations import Look, grown, look, observed, show
from tests.benchmarks.processes import open_files, wait_until
from tests.benchmarks.raw_peers import Swarm

ROOM = "/chat/all"
WARM_UP = 100  # members that come first, so that what comes once for all is there
GRACE = 30.0  # seconds that a server has for letting go of those who left
SPARE_OBJECTS = 500  # by which counts may differ between two looks: a server at rest is not without timers
SPARE_BYTES = 64  # for each that came and went: the allocators take a page more now and then


def idle(members: int, *, trace: bool) -> Look:
    """What so many members add to a server with some members."""
    with observed(trace=trace) as (port, pipe):
        swarm = Swarm()
        swarm.join(port, ROOM, WARM_UP)
        before = look(pipe)
        swarm.join(port, ROOM, members)
        found = grown(before, look(pipe))
        swarm.close()
        return found


def come_and_go(port: int, pid: int, pipe: Connection, members: int) -> Look:
    """How the server is after so many have come and gone."""
    files = open_files(pid)
    swarm = Swarm()
    swarm.join(port, ROOM, members)
    swarm.close()
    wait_until(lambda: open_files(pid) <= files, GRACE, "the server to close what its peers have closed")
    return look(pipe)


def check_growth(members: int, rounds: int) -> bool:
    """Print a line for each round; whether the second half of them has left nothing behind."""
    print(f"\n{rounds} rounds in which {members} members come and go\n{'round':>8} {'RSS KiB':>12} {'objects':>12}")
    with observed(trace=False) as (port, pipe):
        pid = look(pipe).pid
        looks = []
        for number in range(1, rounds + 1):
            looks.append(come_and_go(port, pid, pipe, members))
            print(f"{number:8} {looks[-1].resident / 1024:12,.0f} {looks[-1].objects.total():12,}", flush=True)
    settled, last = looks[(rounds - 1) // 2], looks[-1]
    more = grown(settled, last)
    bytes_each = more.resident / (members * max(1, rounds // 2))
    print(f"since the middle: {more.resident / 1024:,.0f} KiB, {bytes_each:.1f} bytes for each that came and went")
    leaked = {name: count for name, count in more.objects.items() if count > SPARE_OBJECTS}
    print(f"types of which there are more: {leaked or 'none'}")
    return not leaked and bytes_each < SPARE_BYTES


def main() -> None:
    """Print what a member takes, then the rounds; exit with 1 if something grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--coming", type=int, default=2_000, help="members of one round (default: 2000)")
    parser.add_argument("--lines", type=int, default=0, help="show so many lines of code too (default: 0)")
    arguments = parser.parse_args()
    members = arguments.members
    print(f"{platform.platform()}, Python {platform.python_version()}, {members} members, bytes and objects of one")
    resident = idle(members, trace=False).resident
    show(idle(members, trace=True), resident, members, arguments.lines)
    if not check_growth(arguments.coming, arguments.rounds):
        raise SystemExit("something grows")


if __name__ == "__main__":
    main()
