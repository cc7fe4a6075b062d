"""What the contenders have to bear, and one run of it: ``trioroom bench`` against one server."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from tests.benchmarks.peers.contenders import Ready
from tests.benchmarks.peers.serving import Failed, SharedCore, on_core, serving
from tests.benchmarks.processes import LOAD_CORE
from trioroom.bench.result import BUSY

_RUN_TIMEOUT = 300.0
_TOLD_CHARACTERS = 1_000
_GENERATOR_CPU = "generator CPU, busiest process"


@attrs.frozen
class Figure:
    """A line of the bench's result, which is a column of the comparison."""

    name: str
    """As the bench calls it."""
    title: str
    less_is_better: bool = False


_FIGURES: Mapping[str, tuple[Figure, ...]] = {
    "idle": (Figure("server memory per member", "bytes per idle member", less_is_better=True),),
    "connect": (Figure("handshakes/s", "handshakes/s"),),
    "echo": (
        Figure("round trips/s", "echo round trips/s"),
        Figure("round trip p50", "ms of an echo p50", less_is_better=True),
        Figure("round trip p99", "ms of an echo p99", less_is_better=True),
    ),
    "fanout": (
        Figure("deliveries/s", "deliveries/s"),
        Figure("last member p50", "ms to the last member p50", less_is_better=True),
        Figure("last member p99", "ms to the last member p99", less_is_better=True),
    ),
}
"""Of each scenario; the first one is what it is about."""


@attrs.frozen
class Load:
    """A scenario of ``trioroom bench`` with its options."""

    name: str
    scenario: str
    members: int
    in_flight: int = 1

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What is told of it."""
        return _FIGURES[self.scenario]

    @property
    def title(self) -> str:
        """Its size."""
        members = f"{self.members:,} members"
        return f"{members}, {self.in_flight} in flight" if self.scenario == "fanout" else members


_ALL = (
    Load("idle", "idle", 10_000),
    Load("connect", "connect", 5_000),
    Load("echo", "echo", 100),
    Load("fanout", "fanout", 1_000),
    Load("fanout-10000", "fanout", 10_000),
    Load("fanout-10000-32", "fanout", 10_000, 32),
)
LOADS: Mapping[str, Load] = {load.name: load for load in _ALL}
"""By name, in the order in which they are run."""


@attrs.frozen
class Run:
    """What one run measured."""

    figures: Mapping[str, float]
    generator_busy: bool
    """The generator had no CPU left: the server may be better than this."""
    others: float = 0.0
    """The share of the server's core that other processes had, if it has one of its own."""


def measure(ready: Ready, load: Load, duration: float) -> Run:
    """One run against a fresh server.

    Raises:
        Failed: members were lost, or nothing was measured.
    """
    with serving(ready) as server, tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "result.json"
        command = on_core(LOAD_CORE, _generator(ready, load, server.port, duration, file))
        core = SharedCore(server.pid)
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_RUN_TIMEOUT
            )
        except subprocess.TimeoutExpired as exc:
            raise Failed(f"no end after {_RUN_TIMEOUT:g} s") from exc
        if not file.exists():
            raise Failed((done.stderr or done.stdout).strip()[-_TOLD_CHARACTERS:])
        others = core.others()
        return attrs.evolve(understand(json.loads(file.read_text()), load), others=others)


def _generator(ready: Ready, load: Load, port: int, duration: float, file: Path) -> list[str]:
    """The command that puts the load on, and writes the result."""
    module = ["tests.benchmarks.peers.socketio_load"] if ready.contender.socketio else ["trioroom", "bench"]
    url = f"ws://127.0.0.1:{port}{ready.contender.path(load.scenario)}"
    options = [f"--members={load.members}", f"--in-flight={load.in_flight}", f"--duration={duration}", f"--json={file}"]
    return [sys.executable, "-m", *module, load.scenario, url, *options]


def understand(result: Mapping[str, Any], load: Load) -> Run:
    """The figures of ``load`` in what the bench has written.

    Raises:
        Failed: as `measure`.
    """
    told = {figure["name"]: figure["value"] for figure in result["figures"]}
    missing = [figure.name for figure in load.figures if figure.name not in told]
    if missing or not result["succeeded"]:
        raise Failed("; ".join(result["notes"]) or f"no figure for {', '.join(missing)}")
    _check_counts(result["counts"], load)
    busy = told.get(_GENERATOR_CPU, 0.0) > 100 * BUSY
    return Run({figure.name: told[figure.name] for figure in load.figures}, busy)


def _check_counts(counts: Mapping[str, int], load: Load) -> None:
    """A server that sends to too few or too many has been measured at something else."""
    sent, received = counts["sent"], counts["received"]
    most = {"echo": sent, "fanout": load.members * sent}.get(load.scenario, received)
    # A run of fanout ends when all but the publisher have the last messages.
    least = most - load.in_flight if load.scenario == "fanout" else most
    if not least <= received <= most:
        raise Failed(f"{sent} messages brought {received} where {most} were to come")
