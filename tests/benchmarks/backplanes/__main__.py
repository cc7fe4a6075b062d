"""All backplanes side by side, in one run on one machine: publications per second, and how long one takes.

    python -m tests.benchmarks.backplanes [BACKPLANE...] [--rounds 5] [--seconds 1] [--docs]

Each gets a broker of its own, started here. Two nodes in one process: one publishes to a room, the other one hears
it; a publisher awaits each of its publications. Rooms keep nothing, or their last 1,000. The backplanes take turns, and
each figure is the median of its rounds. The exit code is 1 if what was confirmed was not heard, or was heard twice.
``--docs`` is for a quiet machine: it writes the tables of docs/reference/backplanes.md.
"""

from __future__ import annotations

import argparse
import platform
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from tests.backplane.observers import kept_open
from tests.benchmarks.backplanes.brokers import BROKERS, Broker
from tests.benchmarks.backplanes.measuring import Comparison
from tests.benchmarks.backplanes.report import MARK, lines, markdown
from tests.benchmarks.machine import describe_machine
from tests.benchmarks.peers.report import write_into
from tests.benchmarks.redis_clients import take_turns

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "reference" / "backplanes.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and print the tables; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backplanes", nargs="*", metavar="BACKPLANE", help=f"of {', '.join(BROKERS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="odd, so that there is a median (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each rate; three times of each latency")
    parser.add_argument("--docs", action="store_true", help=f"write them into docs/reference/{PAGE.name}")
    options = parser.parse_args(arguments)
    if unknown := set(options.backplanes) - set(BROKERS):
        parser.error(f"no backplane is called {min(unknown)!r}; there are {', '.join(BROKERS)}")
    with ExitStack() as stack:
        names = options.backplanes or list(BROKERS)
        brokers = {name: stack.enter_context(kept_open(BROKERS[name])) for name in names}
        results = compare(brokers, options.rounds, options.seconds)
    print(*lines(results), "", markdown(results), sep="\n")
    if options.docs:
        write_into(PAGE, markdown(results), MARK)
    return 1 if results.failures else 0


def compare(brokers: Mapping[str, Broker], rounds: int, seconds: float) -> Comparison:
    """The figures of all of them."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("trio", "redis", "hiredis"))
    machine = f"{describe_machine()}, Python {platform.python_version()}, {packages}"
    versions = {name: broker.version for name, broker in brokers.items()}
    results = Comparison(machine, time.strftime("%Y-%m-%d", time.gmtime()), rounds, seconds, versions)
    results.figures = take_turns(list(brokers), rounds, lambda name: results.take_turn(name, brokers[name].url))
    return results


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or the brokers would outlive us
    raise SystemExit(main())
