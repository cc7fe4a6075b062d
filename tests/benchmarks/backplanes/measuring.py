"""What is measured of a backplane in its turn, and what came of all turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import attrs
import trio

from tests.benchmarks.redis_clients import PublicationsLost, latencies, publication_rate
from tests.benchmarks.two_nodes import with_history, without_history
from trioroom._core.causes import leaves_of
from trioroom.errors import BackplaneError

PUBLISHERS = (1, 64)
RATE = 200  # publications per second, of which the latency is told: few enough for each to travel alone
KINDS = {"": without_history, ", history": with_history}
"""Of rooms, by what the names of their figures end with."""

T = TypeVar("T")


def rate_name(publishers: int, kind: str) -> str:
    """Of the figure for so many publishers."""
    return f"publications/s, {publishers} publisher{'s' if publishers > 1 else ''}{kind}"


def latency_name(percentile: int, kind: str) -> str:
    """Of the figure at a steady rate."""
    return f"p{percentile} ms at {RATE}/s{kind}"


@attrs.define
class Comparison:
    """All figures of a run."""

    machine: str
    date: str
    rounds: int
    seconds: float
    versions: dict[str, str]
    """Of each that took part, by its name."""
    figures: dict[tuple[str, str], list[float]] = attrs.field(factory=dict)
    """One for each round, by backplane and figure."""
    failures: list[str] = attrs.field(factory=list)
    """What was lost, and by whom."""

    def take_turn(self, name: str, url: str) -> dict[str, float]:
        """The figures of one backplane in one round; of those that fail it is noted why."""
        found: dict[str, float] = {}
        for kind, open_nodes in KINDS.items():
            opening = partial(open_nodes, url)
            for publishers in PUBLISHERS:
                figure = rate_name(publishers, kind)
                rate = self._noted(name, figure, partial(trio.run, publication_rate, opening, publishers, self.seconds))
                if rate is not None:
                    found[figure] = rate
            told = f"latency{kind}"
            waited = self._noted(name, told, partial(trio.run, latencies, opening, RATE, 3 * self.seconds))
            if waited is not None:
                shares = statistics.quantiles(waited, n=100)
                found[latency_name(50, kind)], found[latency_name(99, kind)] = shares[49], shares[98]
        return found

    def _noted(self, name: str, figure: str, measure: Callable[[], T]) -> T | None:
        try:
            return measure()
        except* (PublicationsLost, BackplaneError) as group:
            self.failures += [f"{name}, {figure}: {type(leaf).__name__}: {leaf}" for leaf in leaves_of(group)]
        return None
