"""A report that is one file: figures, options and plots. Needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape

from matplotlib.figure import Figure as Plot
from matplotlib.ticker import NullFormatter

from trioroom.bench.histogram import Histogram
from trioroom.bench.result import Result

_SIZE = (8.0, 3.2)  # inches
_MB = 1e6
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td { padding: .15rem .8rem .15rem 0; } td.n { text-align: right; }
svg { max-width: 100%; height: auto; } .note { font-weight: bold; }
"""


def render(result: Result) -> str:
    """The whole page; it loads nothing from anywhere."""
    title = f"trioroom bench {result.options.scenario.value}"
    rows = "".join(
        f'<tr><td>{escape(figure.name)}</td><td class="n">{figure.text}</td><td>{escape(figure.unit)}</td></tr>'
        for figure in result.figures()
    )
    options = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(str(value))}</td></tr>" for name, value in _options(result)
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in result.notes())
    plots = "".join(f"<h2>{escape(name)}</h2>{svg}" for name, svg in _plots(result))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1><p>{escape(result.machine)}</p>{notes}<table>{rows}</table>{plots}"
        f"<h2>Options</h2><table>{options}</table></body></html>\n"
    )


def _options(result: Result) -> list[tuple[str, object]]:
    options = result.as_json()["options"]
    assert isinstance(options, dict)
    return list(options.items())


def _plots(result: Result) -> list[tuple[str, str]]:
    """Heading and SVG of each that has something to show."""
    plots = []
    for name, histogram in (
        ("Latency", result.tally.latencies),
        ("Time to the last member", result.tally.whole),
        ("Handshakes", result.tally.handshakes),
    ):
        if histogram.total:
            plots.append((name, _distribution(histogram)))
    if any(rate for _, rate in result.throughput()):
        plots.append(("Throughput", _over_time(list(result.throughput()), "messages/s")))
    plots.append(("Joining", _over_time(list(result.joining()), "members/s")))
    if result.watched_server:
        resident = [(sample.at, sample.resident / _MB) for sample in result.samples]
        plots.append(("Server memory", _over_time(resident, "MB resident")))
        plots.append(("Server CPU", _over_time(list(result.server_cpu()), "cores")))
    return plots


def _distribution(histogram: Histogram) -> str:
    """Which share took at most how long: a tail is seen here that is lost in a bar chart."""
    plot = Plot(figsize=_SIZE, layout="constrained")
    axes = plot.add_subplot()
    times, shares, seen = [], [], 0
    for start, count in histogram.buckets():
        seen += count
        times.append(max(start * 1e3, 1e-3))
        shares.append(100 * seen / histogram.total)
    axes.step(times, shares, where="post")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("ms")
    axes.set_ylabel("% took at most this")
    axes.set_ylim(0, 101)
    axes.grid(alpha=0.3)
    return _svg(plot)


def _over_time(points: Sequence[tuple[float, float]], unit: str) -> str:
    plot = Plot(figsize=_SIZE, layout="constrained")
    axes = plot.add_subplot()
    axes.plot([at for at, _ in points], [value for _, value in points])
    axes.set_xlabel("s")
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    return _svg(plot)


def _svg(plot: Plot) -> str:
    """Without the head of a file, as it stands within a page."""
    written = io.StringIO()
    plot.savefig(written, format="svg", metadata={"Date": None})
    text = written.getvalue()
    return text[text.index("<svg") :]
