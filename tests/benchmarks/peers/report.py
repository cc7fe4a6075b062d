"""Lines for the terminal while the comparison goes on, and the tables of the documentation when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.peers.loads import Figure, Load
from tests.benchmarks.peers.results import FIRST, Measured, Results

BEGIN, END = "<!-- results, written by nox -s bench -->", "<!-- end of results -->"
AHEAD = 1.1
"""Times better from which somebody counts as ahead of trioroom: below, the next run may have it the other way round."""
QUIET = 0.1
"""Share of the server's core that others may have: the kernel's work for the generator takes a little too."""
YARDSTICK = "send loop"
"""The contender that is no library."""


def lines(results: Results, load: Load) -> Iterator[str]:
    """One for each contender and figure under a load: the median, and its ratio to trioroom's."""
    for name, measured in results.of(load).items():
        for figure in load.figures:
            ratio = results.ratio(load, figure, name)
            told = f"x {ratio:.2f}" if ratio is not None else ""
            yield f"{load.name:16} {name:18} {figure.name:24} {number(measured, figure):>12}   {told}"
    for measured in results.failed():
        if measured.load == load.name:
            yield f"{load.name:16} {measured.contender:18} failed: {measured.failure}"


def number(measured: Measured, figure: Figure) -> str:
    """A median with the digits that count, and a sign if it may be better than that."""
    value = measured.median(figure)
    digits = f"{value:,.2f}" if figure.name.endswith(("p50", "p99")) else f"{_round(value):,.0f}"
    return f"{_bound(figure)} {digits}" if measured.busy else digits


def heading(figure: Figure, load: Load) -> str:
    """What a column or a plot is about."""
    return f"{figure.title}, {load.title}"


def _bound(figure: Figure) -> str:
    return "≤" if figure.less_is_better else "≥"


def _round(value: float) -> float:
    """To four digits; the fourth is noise already."""
    return float(f"{value:.4g}")


def markdown(results: Results, plots: str | None) -> str:
    """All of it as a part of a page.

    Args:
        plots: where the plots are, seen from the page; None when there are none.
    """
    parts = [
        f"Measured on {results.date}: {results.machine}. {rounds(results).capitalize()} of {results.duration:g} "
        "seconds each. In brackets the ratio to trioroom.",
        _rates(results),
        "Milliseconds until an answer is there, or until the last member of the room has a message, as p50 / p99:",
        _latencies(results),
        *_notes(results),
        "Where others were ahead by a tenth or more:",
        "\n".join(ahead(results)) or "- nowhere",
        *(
            f"![{heading(load.figures[0], load)}]({plots}/{load.name}.svg)"
            for load in results.loads
            if plots is not None
        ),
        "What took part:",
        table(["", "versions"], [[name, told] for name, told in results.versions.items()]),
    ]
    return "\n\n".join(part for part in parts if part)


def rounds(results: Results) -> str:
    """What each figure is taken from."""
    return f"medians of {results.rounds} rounds" if results.rounds > 1 else "one round"


def _plot(load: Load, plots: str) -> str:
    return f"![{heading(load.figures[0], load)}]({plots}/{load.name}.svg)"


def _rates(results: Results) -> str:
    """What each load is about."""
    heads = ["", *(heading(load.figures[0], load) for load in results.loads)]
    rows = []
    for name in results.versions:
        cells = []
        for load in results.loads:
            figure = load.figures[0]
            measured = results.of(load).get(name)
            ratio = results.ratio(load, figure, name)
            told = "" if measured is None else number(measured, figure)
            cells.append(told if ratio is None or name == FIRST else f"{told} ({ratio:.2f})")
        rows.append([name, *cells])
    return table(heads, rows)


def _latencies(results: Results) -> str:
    loads = [load for load in results.loads if len(load.figures) > 1]
    rows = []
    for name in results.versions:
        measured = [(results.of(load).get(name), load.figures[1:]) for load in loads]
        rows.append([name, *(" / ".join(number(m, f) for f in figures) if m else "" for m, figures in measured)])
    return table(["", *(f"{load.scenario}, {load.title}" for load in loads)], rows) if loads else ""


def table(heads: list[str], rows: list[list[str]]) -> str:
    """In Markdown; figures to the right."""
    rule = ["---", *("---:" for _ in heads[1:])] if len(heads) > 2 else ["---", "---"]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))


def _notes(results: Results) -> Iterator[str]:
    """What to know before believing the figures."""
    if any(measured.busy for measured in results.measured):
        yield "≥ and ≤: the load generator had used up its core in some round; the server may be better than this."
    if (others := max((measured.others for measured in results.measured), default=0.0)) > QUIET:
        yield (
            f"The machine was not quiet: other processes had up to {others:.0%} of the server's core in a round, so "
            "that these figures are for trying out only."
        )
    for measured in results.failed():
        yield f"{measured.contender} failed under {measured.load}: {measured.failure}"
    for name, reason in results.missing.items():
        yield f"{name} did not take part: {reason}"


def ahead(results: Results) -> Iterator[str]:
    """Each figure with the libraries that were better than trioroom in it."""
    for load in results.loads:
        for figure in load.figures:
            better = []
            for name in results.of(load):
                ratio = results.ratio(load, figure, name)
                if name == YARDSTICK or not ratio:
                    continue
                if (times := 1 / ratio if figure.less_is_better else ratio) >= AHEAD:
                    better.append(f"{name} ({times:.2f} times)")
            if better:
                yield f"- {heading(figure, load)}: {', '.join(better)}"


def write_into(page: Path, text: str, mark: str = BEGIN) -> None:
    """Put the results between their marks in a page, in place of those there.

    Raises:
        ValueError: the page has no such marks.
    """
    before, begin, rest = page.read_text("utf-8").partition(mark)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no {mark!r} and {END!r} to put the results between")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{END}{after}", "utf-8")
