"""The limit of open files, in processes of their own: it cannot be raised again for all."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)
LOWERED = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, {HARD})); "
RAISED = "from trioroom.cli.open_files import raise_limit_of_open_files; raise_limit_of_open_files(); "
SHOWN = "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"


def output_of(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_soft_limit_is_raised_to_the_hard_one() -> None:
    assert output_of(LOWERED + SHOWN) == f"256 {HARD}"
    assert output_of(LOWERED + RAISED + SHOWN) == f"{HARD} {HARD}"


def test_system_that_does_not_let_us_is_no_reason_to_stop() -> None:
    """As macOS, where the hard limit says infinite and setrlimit(2) will have none of it."""
    refusing = "def refuse(*_): raise ValueError('not allowed to raise maximum limit')\nresource.setrlimit = refuse\n"
    assert output_of(f"{LOWERED}\n{refusing}{RAISED}{SHOWN}") == f"256 {HARD}"


@pytest.fixture
def demo() -> Iterator[subprocess.Popen[str]]:
    """A server whose shell had a low limit, and that has begun to serve."""
    command = LOWERED + "import trioroom.cli; trioroom.cli.main(['demo', '--port', '0'])"
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "trioroom serves" in process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="limits of another process are in Linux' /proc")
def test_command_raises_it(demo: subprocess.Popen[str]) -> None:
    limits = re.search(r"Max open files +(\d+) +(\d+)", Path(f"/proc/{demo.pid}/limits").read_text())
    assert limits is not None
    assert limits[1] == limits[2] == str(HARD)
