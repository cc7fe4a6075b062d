"""The command as one types it, on two contenders and as short as may be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.benchmarks.peers.__main__ import ROOT

DEADLINE = 120.0  # seconds: a machine that is busy with other things takes its time


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One run."""
    command = [sys.executable, "-m", "tests.benchmarks.peers", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)


def test_contenders_are_compared_and_drawn_and_drawn_again(tmp_path: Path) -> None:
    short = ["--scenarios", "fanout", "--rounds", "1", "--members", "10", "--duration", "0.2"]
    done = compare("websockets", *short, "--plots", str(tmp_path / "a"), "--cache", str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    head, *told = done.stdout.splitlines()
    assert "one round" in head
    assert [line.split()[0] for line in told[:2]] == ["trioroom", "websockets"]  # with their versions
    rates = [line.split() for line in told if "deliveries/s" in line]
    assert [rate[1] for rate in rates] == ["trioroom", "websockets"]
    assert rates[0][-2:] == ["x", "1.00"]
    assert "round 1 of 1, websockets" in done.stderr
    again = compare("--redraw", str(tmp_path / "a" / "results.json"), "--plots", str(tmp_path / "b"))
    assert again.returncode == 0, again.stderr
    for name in ("results.json", "fanout.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_unknown_contender_is_a_usage_error() -> None:
    done = compare("nobody")
    assert done.returncode == 2
    assert "no contender nobody; there are trioroom, websockets" in done.stderr
