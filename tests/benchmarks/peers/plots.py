"""Bars of what each load is about, as SVG. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure as Plot

from tests.benchmarks.peers.loads import Load
from tests.benchmarks.peers.report import YARDSTICK, heading, number
from tests.benchmarks.peers.results import FIRST, Results

_WIDTH, _BAR, _MARGIN = 8.0, 0.34, 1.0  # inches
_OURS, _THEIRS, _LIMIT = "#1f6f8b", "#a9b4bd", "#e3d5b8"


def draw(results: Results, directory: Path) -> None:
    """One file for each load, named as it."""
    directory.mkdir(parents=True, exist_ok=True)
    # Small files, the same for the same figures.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "trioroom"}):
        for load in results.loads:
            _bars(results, load).savefig(directory / f"{load.name}.svg", metadata={"Date": None})


def _bars(results: Results, load: Load) -> Plot:
    """Medians, with a line from the worst round to the best one."""
    figure = load.figures[0]
    measured = results.of(load)
    names = list(measured)
    medians = [measured[name].median(figure) for name in names]
    rounds = [measured[name].figures[figure.name] for name in names]
    below = [median - min(values) for median, values in zip(medians, rounds, strict=True)]
    above = [max(values) - median for median, values in zip(medians, rounds, strict=True)]
    plot = Plot(figsize=(_WIDTH, _MARGIN + _BAR * len(names)), layout="constrained")
    axes = plot.add_subplot()
    axes.barh(names, medians, xerr=[below, above], color=[_colour(name) for name in names], ecolor="#555555")
    most = max(median + more for median, more in zip(medians, above, strict=True))
    for at, name in enumerate(names):
        axes.text(medians[at] + above[at] + 0.01 * most, at, number(measured[name], figure), va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * most)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_title(f"{heading(figure, load)} ({'less' if figure.less_is_better else 'more'} is better)", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return plot


def _colour(name: str) -> str:
    return {FIRST: _OURS, YARDSTICK: _LIMIT}.get(name, _THEIRS)
