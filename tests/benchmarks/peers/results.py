"""What a comparison has measured: kept as JSON, so that tables and plots can be made again without measuring."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import msgspec

from tests.benchmarks.machine import describe_machine
from tests.benchmarks.peers.contenders import CONTENDERS
from tests.benchmarks.peers.loads import LOADS, Figure, Load
from tests.benchmarks.peers.serving import pinned

FIRST = next(iter(CONTENDERS))
"""Whom ratios are to."""


class Measured(msgspec.Struct):
    """A contender under one load, over all rounds."""

    load: str
    contender: str
    figures: dict[str, list[float]] = {}
    """By the bench's name, one for each round."""
    busy: bool = False
    """The generator had no CPU left in some round, so that the contender may be better than this."""
    others: float = 0.0
    """The largest share of the server's core that other processes had in a round."""
    failure: str | None = None
    """Why there are no figures, or no more."""

    def median(self, figure: Figure) -> float:
        """Of all rounds."""
        return statistics.median(self.figures[figure.name])


class Results(msgspec.Struct):
    """A whole run."""

    machine: str
    date: str
    rounds: int
    duration: float
    versions: dict[str, str]
    """Of each contender that took part."""
    missing: dict[str, str]
    """Why others did not."""
    members: dict[str, int] = {}
    """Of each load that was run."""
    measured: list[Measured] = []

    def of(self, load: Load) -> dict[str, Measured]:
        """What there is under a load, by contender; those that failed left out."""
        return {m.contender: m for m in self.measured if m.load == load.name and m.failure is None and m.figures}

    def failed(self) -> Iterator[Measured]:
        """Contenders that could not bear a load."""
        return (measured for measured in self.measured if measured.failure is not None)

    @property
    def loads(self) -> list[Load]:
        """That were run."""
        run = [load for load in LOADS.values() if self.of(load)]
        return [attrs.evolve(load, members=self.members.get(load.name, load.members)) for load in run]

    def ratio(self, load: Load, figure: Figure, contender: str) -> float | None:
        """A contender's median divided by trioroom's; None when that is not there or 0."""
        of_load = self.of(load)
        if FIRST not in of_load or contender not in of_load or not of_load[FIRST].median(figure):
            return None
        return of_load[contender].median(figure) / of_load[FIRST].median(figure)

    def save(self, file: Path) -> None:
        """As JSON."""
        file.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def load_results(file: Path) -> Results:
    """What `Results.save` has written."""
    return msgspec.json.decode(file.read_bytes(), type=Results)


def new_results(rounds: int, duration: float, versions: dict[str, str], missing: dict[str, str]) -> Results:
    """Of a run that begins now, on this machine."""
    cores = "server and load on a core each" if pinned() else "server and load not pinned to cores"
    machine = f"{describe_machine()}, {cores}"
    date = time.strftime("%Y-%m-%d", time.gmtime())
    return Results(machine, date, rounds, duration, versions, missing)
