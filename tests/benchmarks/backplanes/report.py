"""What came of a comparison: lines for the terminal, tables for the page."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from tests.benchmarks.backplanes.measuring import KINDS, PUBLISHERS, RATE, Comparison, latency_name, rate_name
from tests.benchmarks.peers.report import table
from tests.benchmarks.redis_clients import PAYLOAD_BYTES

MARK = "<!-- results, written by python -m tests.benchmarks.backplanes --docs -->"


def markdown(results: Comparison) -> str:
    """All of it as a part of a page."""
    rates = [rate_name(publishers, kind) for kind in KINDS for publishers in PUBLISHERS]
    delays = [latency_name(percentile, kind) for kind in KINDS for percentile in (50, 99)]
    return "\n\n".join((
        f"Measured on {results.date}: {results.machine}. Medians of {results.rounds} rounds of {results.seconds:g} s "
        f"in which the backplanes took turns, in brackets the lowest and the highest; {PAYLOAD_BYTES} bytes, two nodes "
        "in one process, every publication counted that the other one has heard. Brokers run on this machine too.",
        _figures(results, rates),
        f"Milliseconds from publishing on one node to hearing it on the other, at {RATE} publications a second:",
        _figures(results, delays),
        "What took part: " + "; ".join(f"{name}: {told}" for name, told in results.versions.items()) + ".",
        *(f"- {failure}" for failure in results.failures),
    ))  # fmt: skip


def lines(results: Comparison) -> Iterator[str]:
    """One for each figure."""
    for (name, figure), values in results.figures.items():
        yield f"{name:16} {figure:40} {_told(values)}"


def _figures(results: Comparison, figures: Sequence[str]) -> str:
    rows = [
        [name, *(_told(results.figures.get((name, figure), ())) for figure in figures)] for name in results.versions
    ]
    return table(["", *figures], rows)


def _told(values: Sequence[float]) -> str:
    """The median, and between what it was."""
    if not values:
        return ""
    median, lowest, highest = (_number(each) for each in (statistics.median(values), min(values), max(values)))
    return f"{median} ({lowest} to {highest})"


def _number(value: float) -> str:
    """With three digits: the fourth is noise."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"
