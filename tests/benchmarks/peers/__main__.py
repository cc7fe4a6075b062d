"""trioroom beside other libraries, one run on one machine, under the load of ``trioroom bench``.

    nox -s bench -- [CONTENDER...] [--rounds N] [--scenarios idle echo ...] [--plots DIRECTORY] [--docs]
    python -m tests.benchmarks.peers ...

On Linux the server has one core and the generator another one. Under each load the contenders take turns, and each
figure is the median of its rounds: absolute figures drift from hour to hour and machine to machine, so compare within a
run. ``--docs`` is for a quiet machine: it writes the tables and plots of docs/explanation/performance.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import attrs

from tests.benchmarks.peers.contenders import CONTENDERS, Missing, Ready, prepare
from tests.benchmarks.peers.loads import LOADS, Load, measure
from tests.benchmarks.peers.report import YARDSTICK, lines, markdown, rounds, write_into
from tests.benchmarks.peers.results import FIRST, Measured, Results, load_results, new_results
from tests.benchmarks.peers.serving import Failed
from trioroom.cli.open_files import raise_limit_of_open_files

ROOT = Path(__file__).parent.parent.parent.parent
CACHE = ROOT / ".nox" / "peers"
PAGE = ROOT / "docs" / "explanation" / "performance.md"
RESULTS = "results.json"


def main() -> None:
    """Compare, print as it goes, and write what is asked for."""
    arguments = _parse()
    directory = arguments.plots or (PAGE.with_suffix("") if arguments.docs else None)
    if arguments.redraw is not None:
        results = load_results(arguments.redraw)
    else:
        raise_limit_of_open_files()
        results = compare(arguments, directory)
    if directory is not None:
        from tests.benchmarks.peers.plots import draw  # of the extra, and not wanted without plots

        draw(results, directory)
        results.save(directory / RESULTS)
    if arguments.docs:
        write_into(PAGE, markdown(results, PAGE.stem if directory == PAGE.with_suffix("") else None))
    if any(results.failed()):
        raise SystemExit(1)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="nox -s bench --", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("contenders", nargs="*", metavar="CONTENDER", help=f"of {', '.join(CONTENDERS)}; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="odd, so that there is a median (default: 3)")
    parser.add_argument("--scenarios", nargs="+", default=list(LOADS), choices=list(LOADS), help="default: all")
    parser.add_argument("--members", type=int, help="at most so many under each load, to try it out")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds of load in each round (default: 5)")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help=f"write plots and {RESULTS} there")
    parser.add_argument("--docs", action="store_true", help="write the page of the documentation and its plots")
    parser.add_argument("--redraw", type=Path, metavar="FILE", help=f"measure nothing, take this {RESULTS}")
    parser.add_argument("--cache", type=Path, default=CACHE, help="for packages of npm and the compiled send loop")
    arguments = parser.parse_args()
    if unknown := set(arguments.contenders) - set(CONTENDERS):
        parser.error(f"no contender {', '.join(sorted(unknown))}; there are {', '.join(CONTENDERS)}")
    return arguments


def compare(arguments: argparse.Namespace, directory: Path | None) -> Results:
    """Measure all contenders that can be, under all loads asked for; keep what there is so far in ``directory``."""
    ready, missing = prepare_all({FIRST, *(arguments.contenders or CONTENDERS)}, arguments.cache)
    versions = {contender.contender.name: contender.versions for contender in ready}
    results = new_results(arguments.rounds, arguments.duration, versions, missing)
    print(f"{results.machine}; {rounds(results)}")
    for name, told in (versions | {name: f"left out: {reason}" for name, reason in missing.items()}).items():
        print(f"{name:18} {told}")
    for load in (LOADS[name] for name in LOADS if name in arguments.scenarios):
        lowered = attrs.evolve(load, members=min(load.members, arguments.members or load.members))
        results.members[load.name] = lowered.members
        # The yardstick keeps next to nothing for a connection, and nobody could.
        taking_part = [c for c in ready if load.scenario != "idle" or c.contender.name != YARDSTICK]
        results.measured += take_turns(taking_part, lowered, arguments.rounds, arguments.duration)
        for line in lines(results, load):
            print(line, flush=True)
        if directory is not None:  # a long run that is broken off has not been for nothing
            directory.mkdir(parents=True, exist_ok=True)
            results.save(directory / RESULTS)
    return results


def prepare_all(names: Iterable[str], cache: Path) -> tuple[list[Ready], dict[str, str]]:
    """Those who can be started, in the order of `CONTENDERS`, and why the others cannot."""
    ready: list[Ready] = []
    missing: dict[str, str] = {}
    for name in CONTENDERS:
        if name in names:
            try:
                ready.append(prepare(CONTENDERS[name], cache))
            except Missing as exc:
                missing[name] = str(exc)
    return ready, missing


def take_turns(contenders: list[Ready], load: Load, times: int, duration: float) -> list[Measured]:
    """All contenders' figures; who fails once is not asked again."""
    measured = {ready.contender.name: Measured(load.name, ready.contender.name) for ready in contenders}
    for done in range(times):
        for ready in contenders:
            of_contender = measured[ready.contender.name]
            if of_contender.failure is not None:
                continue
            told = f"{load.name}: round {done + 1} of {times}, {ready.contender.name}"
            print(told, end="\033[K\r", file=sys.stderr, flush=True)
            try:
                run = measure(ready, load, duration)
            except Failed as exc:
                of_contender.failure = str(exc)
                continue
            of_contender.busy |= run.generator_busy
            of_contender.others = max(of_contender.others, run.others)
            for name, value in run.figures.items():
                of_contender.figures.setdefault(name, []).append(value)
    print(end="\033[K", file=sys.stderr, flush=True)
    return list(measured.values())


if __name__ == "__main__":
    main()
