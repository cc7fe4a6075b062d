"""Attacks on a server while 500 members chat: what ends each attack, when, and what the members notice.

    python -m tests.benchmarks.hostile [--attacks NAME ...] [--seconds 5] [--patience 20] [--set NAME=VALUE ...]

The members sit in ten rooms of 50, and each says something every two seconds: 250 publications and 12,500
deliveries a second, all the time. Attacks come one after another, each on a new server, by 50 attackers at
once (the slow handshake by 1,000) who come again every second, for five seconds and until the last one has
met its end.
Settings are the defaults but for ``compression=true``, for the bomb's sake, and ``ping_interval=8`` with
``ping_timeout=4``, to save time. Server on core 0, chat and attackers on core 1, these in a process that runs
only while the chat is idle, so that the chat's latency is the server's.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
from collections import Counter

from tests.benchmarks.attacks import ATTACKS, Report, attack_server
from tests.benchmarks.processes import LOAD_CORE, CpuMeter, Watch, beside, rooms_command, running
from tests.benchmarks.raw_peers import Swarm, frame, stamped
from trioroom import Settings
from trioroom.cli.assignments import parse_settings

ROOMS, MEMBERS = 10, 50
INTERVAL = 2.0  # seconds between two messages of one member, on average
MESSAGE_BYTES = 64
LOOK_INTERVAL = 0.1  # seconds between two samples of the server, and two looks whether the attackers are done
CALM = 2.0  # seconds of chat before an attack
GRACE = 2.0  # seconds that an attack may take beyond its settings: all attackers come at once
SETTINGS = ["compression=true", "ping_interval=8", "ping_timeout=4"]
MIB = 1 << 20
COLUMNS = "{:20} {:>9} {:>8} {:28} {:>13} {:7} {:>7} {:>9} {:>8} {:>8} {:>8} {:>8} {:>5} {:>6} {:>5} {:>5}"


class Chat:
    """The members, who should notice nothing, and the server they are on."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.swarm = Swarm()
        self._watch = Watch(pid)
        self._published = 0
        for room in range(ROOMS):
            self.swarm.join(port, f"/chat/{room}", MEMBERS)
        self.swarm.every(INTERVAL / len(self.swarm.peers), self._talk)
        self.swarm.every(LOOK_INTERVAL, self._watch.look)

    def _talk(self) -> None:
        random.choice(self.swarm.peers).send(frame(stamped(MESSAGE_BYTES)))
        self._published += 1

    def begin(self) -> None:
        """Forget what was measured so far."""
        self._published = 0
        self.swarm.latencies.clear()
        self._watch.samples.clear()
        self._watch.look()
        self._meter = CpuMeter(self._watch.pid)

    def figures(self) -> list[str]:
        """Since `begin`: what arrived, in per cent, and after how many milliseconds; growth of the server in MiB;
        `CpuMeter.figures`; members lost.
        """
        first = self._watch.samples[0]
        return [
            f"{100 * self.swarm.latencies.total / (self._published * MEMBERS):.1f}",
            *(f"{self.swarm.latencies.quantile(share):,.1f}" for share in (0.5, 0.99, 1)),
            f"{(self._watch.peak - first.resident) / MIB:,.1f}",
            *(f"{share:.0f}" for share in self._meter.figures().values()),
            str(sum(peer.ended is not None for peer in self.swarm.peers)),
        ]

    def suffer(self, name: str, seconds: float, patience: float) -> Report:
        """Go on chatting while an attack is made."""
        answers: list[Report | None] = []
        with beside(attack_server, name, self.port, ATTACKS[name].attackers, seconds, patience) as pipe:

            def look() -> None:
                if pipe.poll():
                    answers.append(pipe.recv())

            self.swarm.every(LOOK_INTERVAL, look)
            self.swarm.run(math.inf, lambda: len(answers) == 1)
            self.begin()
            self.swarm.run(math.inf, lambda: len(answers) == 2)
            self.swarm.forget(look)
        report = answers[1]
        assert report is not None
        return report


def row(name: str, report: Report, settings: Settings, figures: list[str]) -> str:
    """What became of the attackers, whether it is what should, and what the chat noticed."""
    attack = ATTACKS[name]
    # A setting that this version does not have yet takes no time.
    bound = sum(getattr(settings, setting, 0.0) for setting in attack.within) + GRACE
    ends = Counter(end for end, _ in report.ends)
    times = [seconds for _, seconds in report.ends]
    good = set(ends) == {attack.end} and max(times) <= bound
    return COLUMNS.format(
        name,
        attack.attackers,
        attack.end,
        ", ".join(f"{count} {end}" for end, count in ends.most_common()),
        f"{min(times):.1f} to {max(times):.1f}",
        "yes" if good else "NO",
        f"{report.sent / MIB:,.0f}",
        *figures,
    )


def main() -> None:
    """Make the attacks and print a table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", nargs="*", default=list(ATTACKS), choices=list(ATTACKS), help="default: all")
    parser.add_argument("--seconds", type=float, default=5, help="that attackers come again for (default: 5)")
    parser.add_argument("--patience", type=float, default=20, help="seconds until one counts as still there")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    assignments = [*SETTINGS, *arguments.settings]
    settings = parse_settings(assignments)
    print(f"{platform.platform()}, Python {platform.python_version()}, {', '.join(assignments)}")
    heads = ["attack", "attackers", "expected", "ended with", "after s", "in time", "sent MB"]
    print(
        COLUMNS.format(
            *heads, "arrived %", "p50 ms", "p99 ms", "longest", "RSS +MiB", "CPU %", "others", "load", "lost"
        )
    )
    for name in ("", *arguments.attacks):
        # A new server for each, so that one attack's damage is not the next one's beginning.
        with running(rooms_command(assignments)) as (port, pid):
            chat = Chat(port, pid)
            chat.swarm.run(CALM)
            if name:
                report = chat.suffer(name, arguments.seconds, arguments.patience)
                print(row(name, report, settings, chat.figures()), flush=True)
            else:
                chat.begin()
                chat.swarm.run(2 * arguments.seconds)
                print(COLUMNS.format("none", *[""] * 6, *chat.figures()), flush=True)
            chat.swarm.close()


if __name__ == "__main__":
    main()
