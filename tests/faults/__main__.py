"""Faults at random on two nodes and their broker, and whether the guarantees held: see docs/howto/find-faults.md.

    python -m tests.faults [--broker redis|nats|kafka] [--seed N] [--minutes M] [--seeds K] [--folder DIR]

The schedule of faults is a function of the seed, so a seed that failed can be run again. With several seeds the run
goes on after a violation. Exit code 1 if there was one.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio

from tests.faults.brokers import BROKERS
from tests.faults.checker import check
from tests.faults.records import Received, Run, Told, Violation, write_run
from tests.faults.run import Outcome, run_seed
from tests.faults.schedule import plan
from trioroom._core.causes import leaves_of

_MOST_SHOWN: Final = 40
"""Violations of one seed that are printed; the folder has all."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the seeds one after another, and say what broke."""
    options = _parse(arguments)
    first = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    parent = options.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    failed = []
    for seed in range(first, first + options.seeds):
        folder = _fresh(parent / f"seed-{seed}")
        print(f"seed {seed}, {options.minutes:g} minutes", flush=True)
        for fault in plan(seed, options.minutes):
            print(f"  {fault}", file=sys.stderr)
        violations = run_and_check(seed, options.minutes, folder, options.broker)
        if violations:
            failed.append(seed)
            _tell_violations(violations, folder)
            same = f"--broker {options.broker} --seed {seed} --minutes {options.minutes:g}"
            print(f"again: python -m tests.faults {same}", flush=True)
    if options.seeds > 1:
        print(f"{options.seeds} seeds, {len(failed)} with violations: {', '.join(map(str, failed)) or 'none'}")
    sys.exit(bool(failed))


def run_and_check(seed: int, minutes: float, folder: Path, broker: str) -> list[Violation]:
    """One seed. What ends the run at once is a violation too: our client runs in this process."""
    try:
        outcome = trio.run(partial(run_seed, seed, minutes, folder, broker))
    except Exception as exc:
        traceback.print_exc()
        causes = leaves_of(exc) if isinstance(exc, ExceptionGroup) else [exc]
        return [Violation("no crash", "client or suite", f"{cause!r}; see the traceback") for cause in causes]
    write_run(outcome.run, folder)
    violations = check(outcome.run)
    print(f"\033[K{summary(outcome)}", flush=True)
    return violations


def summary(outcome: Outcome) -> str:
    """What was checked."""
    run = outcome.run
    entries = [entry for record in run.records for entry in record.entries]
    lines: Mapping[str, int] = {
        "publications": len(run.publications),
        "acknowledged": sum(each.acknowledged is not None for each in run.publications),
        "deliveries": sum(isinstance(each, Received) for each in entries),
        "records of members": len(run.records),
        **{f"gaps: {reason}": count for reason, count in sorted(_gaps(run).items())},
        "lives of nodes": len(run.lives),
        "hooks": sum(len(life.hooks) for life in run.lives),
        **dict(sorted(outcome.counts.items())),
    }
    return "\n".join(f"  {name:36} {count:10,}" for name, count in lines.items())


def _gaps(run: Run) -> Mapping[str, int]:
    return Counter(entry.reason for record in run.records for entry in record.entries if isinstance(entry, Told))


def _tell_violations(violations: Sequence[Violation], folder: Path) -> None:
    for violation in violations[:_MOST_SHOWN]:
        print(f"VIOLATION: {violation}")
    if len(violations) > _MOST_SHOWN:
        print(f"and {len(violations) - _MOST_SHOWN} more")
    for promise, count in Counter(violation.promise for violation in violations).items():
        print(f"{count:6,} violations: {promise}")
    print(f"records: {folder}")


def _fresh(folder: Path) -> Path:
    """One that is not there yet, so that the records of an earlier run stay."""
    names = (folder.name, *(f"{folder.name}.{number}" for number in range(2, 1_000)))
    return next(each for name in names if not (each := folder.with_name(name)).exists())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--broker", choices=[*BROKERS], default="redis", help="what links the nodes (default: redis)")
    parser.add_argument("--seed", type=int, help="the first one (default: any)")
    parser.add_argument("--seeds", type=int, default=1, help="how many, one after another (default: 1)")
    parser.add_argument("--minutes", type=float, default=1.0, help="of faults, for each (default: 1)")
    parser.add_argument("--folder", type=Path, help="for logs and records (default: a temporary one, which stays)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
