"""Run the Autobahn suite (by kosoku's fuzzing client) against our server and sum it up.

    python tests/autobahn/run.py --output report.json [--include '9.*'] [--parallelism 4]

Exits with 1 when a case failed. The report's verdicts are Autobahn's: OK, NON-STRICT, INFORMATIONAL,
UNIMPLEMENTED, FAILED and so on, one for the messages and one for the closing handshake.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import kosoku
from kosoku._kosoku import CaseResult

SERVER = Path(__file__).with_name("server.py")
ROOT = SERVER.parents[2]
ACCEPTABLE = {"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"}
ACCEPTABLE_CLOSE = {"OK", "INFORMATIONAL"}
STOP_TIMEOUT = 10.0  # seconds a terminated server has to be gone


@contextmanager
def run_server() -> Iterator[int]:
    """A server in a process of its own, so that client and server do not share an interpreter; yields its port."""
    command = [sys.executable, "-W", "error", str(SERVER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=_environment()) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{SERVER} did not start; run it by hand to see why")
            yield int(line)
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run_cases(cases: Sequence[str] | None = None, *, parallelism: int = 1) -> list[CaseResult]:
    """The results of ``cases`` (ids or globs; None is the whole suite) against a fresh server."""

    async def run(port: int) -> list[CaseResult]:
        try:
            return await kosoku.run_fuzzingclient(f"ws://127.0.0.1:{port}/echo", cases, concurrency=parallelism)
        except kosoku.FailureError as failure:
            return list(failure.results)

    with run_server() as port:
        return asyncio.run(run(port))


def is_failed(result: CaseResult) -> bool:
    return result.behavior.value not in ACCEPTABLE or result.behavior_close.value not in ACCEPTABLE_CLOSE


def summarize(results: Iterable[CaseResult]) -> str:
    """One line for each section, then one for each case that is not plainly OK."""
    sections: dict[str, Counter[str]] = {}
    notable = []
    for result in results:
        verdict = "FAILED" if is_failed(result) else result.behavior.value
        sections.setdefault(result.case_id.split(".")[0], Counter())[verdict] += 1
        if verdict != "OK":
            close = f"{result.behavior_close.value} ({result.result_close})"
            notable.append(f"{result.case_id}: {result.behavior.value}, close {close}: {result.result}")
    lines = [f"section {section}: {_figures(sections[section])}" for section in sorted(sections, key=int)]
    return "\n".join([*lines, f"in all: {_figures(sum(sections.values(), Counter()))}", *notable])


def _figures(verdicts: Counter[str]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))


def to_report(results: Iterable[CaseResult]) -> dict[str, dict[str, object]]:
    """What goes to ``--output``: by case id."""
    return {
        result.case_id: {
            "behavior": result.behavior.value,
            "behavior_close": result.behavior_close.value,
            "remote_close_code": result.remote_close_code,
            "duration_ms": result.duration,
            "result": result.result,
        }
        for result in results
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--include", action="append", help="case id or glob; may be repeated (default: all cases)")
    parser.add_argument("--parallelism", type=int, default=4, help="cases at a time (default: 4)")
    parser.add_argument("--output", type=Path, help="file for the JSON report")
    options = parser.parse_args()
    begun = time.perf_counter()
    results = run_cases(options.include, parallelism=options.parallelism)
    print(summarize(results))
    print(f"{len(results)} cases in {time.perf_counter() - begun:.1f} s")
    if options.output is not None:
        options.output.write_text(json.dumps(to_report(results), indent=1) + "\n")
    return 1 if any(is_failed(result) for result in results) or not results else 0


if __name__ == "__main__":
    sys.exit(main())
