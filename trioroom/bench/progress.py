"""How far a run is, and its table, in a terminal. Needs rich."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from trioroom.bench.options import BenchOptions
from trioroom.bench.result import Result
from trioroom.bench.scenarios.base import Step
from trioroom.bench.tally import Counts

_TIMED = ("load", "stay")


@attrs.define
class Bars:
    """One for each step; a `Watcher`."""

    options: BenchOptions
    progress: Progress
    _step: str = ""
    _task: object = None

    def begin(self, step: Step) -> None:
        """See `Watcher`."""
        self._finish()
        self._step = step.name
        if self.progress.disable:
            self.progress.console.print(step.name.replace("_", " "))
        total = self.options.members if step.name in ("open", "back") else None
        if step.name in _TIMED:
            total = 100
        self._task = self.progress.add_task(step.name.replace("_", " "), total=total, told="")

    def move(self, counts: Counts, elapsed: float) -> None:
        """See `Watcher`."""
        done: float = counts.opened + counts.failed
        if self._step == "back":
            done -= self.options.members
        elif self._step in _TIMED:
            done = 100 * elapsed / self.options.duration
        told = f"{counts.opened:,} joined, {counts.received:,} messages, {counts.closed:,} lost"
        self.progress.update(self._task, completed=done, told=told)  # type: ignore[arg-type]  # rich's own TaskID
        self.progress.refresh()

    def _finish(self) -> None:
        if self._task is not None:
            self.progress.update(self._task, total=1, completed=1)  # type: ignore[arg-type]

    def close(self) -> None:
        """The last step is over."""
        self._finish()


@contextmanager
def open_bars(options: BenchOptions) -> Iterator[Bars]:
    """On standard error, so that the table alone can go into a file. What is no terminal gets a line for each step."""
    console = Console(stderr=True)
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[told]}"),
        console=console,
        disable=not console.is_terminal,
        auto_refresh=False,  # its thread would take time from generators on a machine of few cores
    )
    with progress:
        bars = Bars(options, progress)
        yield bars
        bars.close()


def print_result(result: Result) -> None:
    """The table and what to know about it, on standard output."""
    console = Console()
    options = result.options
    table = Table(
        title=f"trioroom bench {options.scenario.value}, {options.members:,} members, {options.protocol.value}"
    )
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("")
    for figure in result.figures():
        table.add_row(figure.name, figure.text, figure.unit)
    console.print(table)
    console.print(result.machine)
    for note in result.notes():
        console.print(f"[bold]{note}[/bold]" if "bottleneck" in note else note, highlight=False)
