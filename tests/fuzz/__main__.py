"""Coverage-guided fuzzing of what peers, proxies and brokers send.

    nox -s fuzz -- [TARGET...] [--minutes M] [--keep]
    python -m tests.fuzz ...

One target after the other. What has been found so far is where each begins; ``--keep`` writes the fewest inputs that
reach as much into tests/fuzz/corpus. An input that breaks a promise ends the run and is shown: put it into the target's
file there, and tests/fuzz/test_targets.py fails until it is mended.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz import corpus
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS
from tests.fuzz.words import words

ROOT = Path(__file__).parent.parent.parent
WORK = ROOT / ".fuzz"
SLOW = 10  # seconds for one input; most take less than a millisecond
MAX_BYTES = 256  # of an input: the bounds of most targets are smaller, and more short inputs can be tried


def main() -> None:
    """Fuzz each target that is asked for, and say which have failed."""
    arguments = _parse()
    failed = [target for target in arguments.targets or TARGETS if not fuzz(target, arguments.minutes, arguments.keep)]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="nox -s fuzz --", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target (default: 1)")
    parser.add_argument("--keep", action="store_true", help="write the corpus")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"no target is called {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    return arguments


def fuzz(target: str, minutes: float, keep: bool) -> bool:
    """Whether all promises were kept."""
    print(f"-- {target}: {TARGETS[target].__doc__}", flush=True)
    directory = WORK / target
    inputs = directory / "inputs"
    corpus.unpack(corpus.read(target) + seeds(target), inputs)
    arguments = [
        f"-max_total_time={max(1, round(60 * minutes))}",  # 0 is for ever
        f"-timeout={SLOW}",
        f"-max_len={MAX_BYTES}",
        f"-artifact_prefix={directory}/",
        "-print_final_stats=1",
        *_dictionary(target, directory / "words"),
    ]
    done = _run(target, [*arguments, str(inputs)])
    if done != 0:
        _show_findings(directory)
    elif keep:
        _keep(target, inputs, directory / "merged")
    return done == 0


def _run(target: str, arguments: Sequence[str]) -> int:
    command = [sys.executable, "-m", "tests.fuzz.instrumented", target, *arguments]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _dictionary(target: str, file: Path) -> list[str]:
    entries = ["".join(f"\\x{byte:02x}" for byte in word) for word in words(target)]
    file.write_text("".join(f'"{entry}"\n' for entry in entries))
    return [f"-dict={file}"] if entries else []


def _show_findings(directory: Path) -> None:
    for file in sorted(directory.iterdir()):
        if file.name.startswith(("crash-", "timeout-", "oom-", "leak-")):
            print(f"{file.relative_to(ROOT)}: {file.read_bytes()!r}", flush=True)


def _keep(target: str, inputs: Path, merged: Path) -> None:
    """Write the corpus anew: the fewest inputs that reach all that these do."""
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir()
    if _run(target, ["-merge=1", str(merged), str(inputs)]) == 0:
        corpus.write(target, corpus.pack(merged))


if __name__ == "__main__":
    main()
