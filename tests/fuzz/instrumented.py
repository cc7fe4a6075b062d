"""One target under libFuzzer: ``python -m tests.fuzz.instrumented TARGET``, and arguments of libFuzzer's own."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).parent.parent.parent
INSTRUMENTED = ("_core", "_wire")


def others() -> list[str]:
    """The modules of trioroom that are not fuzzed: atheris can only tell whole distributions apart by itself."""
    files = (file.relative_to(ROOT) for file in (ROOT / "trioroom").rglob("*.py"))
    return [".".join(file.with_suffix("").parts) for file in files if file.parts[1] not in INSTRUMENTED]


with atheris.instrument_imports(include=["trioroom"], exclude=others()):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    _, target, *arguments = sys.argv
    atheris.enabled_hooks.add("RegEx")
    # To merge, libFuzzer starts its own program again, by a shell.
    program = shlex.join([sys.executable, "-m", "tests.fuzz.instrumented", target])
    atheris.Setup([program, *arguments], TARGETS[target])
    atheris.Fuzz()
