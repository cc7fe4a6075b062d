"""Runs a scenario: starts the generators, has them take its steps together, and puts together what they counted."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

import attrs

from trioroom.bench.generator import FINISH, generate
from trioroom.bench.monitor import Monitor, watch_servers
from trioroom.bench.options import BenchOptions
from trioroom.bench.pulse import INTERVAL
from trioroom.bench.result import Measured, Result
from trioroom.bench.scenarios import SCENARIOS
from trioroom.bench.scenarios.base import Play, Step
from trioroom.bench.shared import open_shared
from trioroom.bench.tally import Counts, Finished, StepDone, Tally, Tick
from trioroom.bench.target import Target

_STOP_TIMEOUT = 10.0  # seconds for a generator's last word; it looks for ours four times a second
_JOIN_TIMEOUT = 5.0


class Watcher(Protocol):
    """Who is told how far it is."""

    def begin(self, step: Step) -> None:
        """The next step."""
        ...

    def move(self, counts: Counts, elapsed: float) -> None:
        """So much has been counted, after so many seconds of this step."""
        ...


class GeneratorDied(Exception):
    """A process has ended in the midst of it; it has told why on standard error."""


@attrs.define
class Conductor:
    """One run; `conduct` is it."""

    options: BenchOptions
    monitor: Monitor
    watcher: Watcher
    links: list[Connection]
    tally: Tally = attrs.field(factory=Tally)
    steps: dict[str, Measured] = attrs.field(factory=dict)
    complaints: list[str] = attrs.field(factory=list)
    generator_bytes: int = 0
    interrupted: bool = False
    _latest: dict[int, Counts] = attrs.field(factory=dict)

    def conduct(self) -> None:
        """All steps, unless Ctrl-C or a stall ends it before; then the last words of all generators."""
        self.monitor.sample(Counts())
        try:
            for step in SCENARIOS[self.options.scenario].plan(self.options):
                self.watcher.begin(step)
                self._take(step)
                if self.complaints:
                    break
        except KeyboardInterrupt:
            self.interrupted = True
        self.monitor.sample(self._counts())
        self._finish()

    def _take(self, step: Step) -> None:
        """All generators do it; returns when the last one has."""
        self._say(step.name)
        began = time.monotonic()
        working, silent = set(self.links), set(self.links)
        while working:
            for link in wait(self.links, INTERVAL):
                assert isinstance(link, Connection)
                silent.discard(link)
                if isinstance(self._hear(link), StepDone):
                    working.discard(link)
            if not silent & working:  # at our own pace, a sample would now and then miss a tick, and the next have two
                silent = set(working)
                self.monitor.sample(self._counts())
            self.watcher.move(self._counts(), time.monotonic() - began)

    def _finish(self) -> None:
        self._say(FINISH)
        talking = set(self.links)
        deadline = time.monotonic() + _STOP_TIMEOUT
        while talking and (left := deadline - time.monotonic()) > 0:
            for link in wait(talking, left):
                assert isinstance(link, Connection)
                if isinstance(self._hear(link), Finished):
                    talking.discard(link)
        if talking:
            self.complaints.append(f"{len(talking)} generators have not handed over what they measured")

    def _say(self, word: str) -> None:
        for link in self.links:
            link.send(word)

    def _hear(self, link: Connection) -> object:
        try:
            said = link.recv()
        except (EOFError, ConnectionResetError) as exc:
            raise GeneratorDied(f"generator {self.links.index(link)} has ended") from exc
        if isinstance(said, Tick):
            self._latest[said.process] = said.counts
        elif isinstance(said, StepDone):
            self.steps.setdefault(said.step, Measured()).add(said)
            if said.complaint is not None:
                self.complaints.append(said.complaint)
        elif isinstance(said, Finished):
            self.tally.merge(said.tally)
            self.generator_bytes += said.resident_after - said.resident_before
        return said

    def _counts(self) -> Counts:
        total = Counts()
        for counts in self._latest.values():
            total.add(counts)
        return total


def run_bench(
    options: BenchOptions,
    target: Target,
    watcher: Watcher,
    description: str,
    server: int | None = None,
    scenario: type[Play] | None = None,
) -> Result:
    """Do it, and say what came of it.

    Args:
        description: of the machine.
        server: a process that is to end with this one, if we have started the server.
        scenario: instead of the one in `SCENARIOS`, with the same steps, for servers that speak something else.
    Raises:
        GeneratorDied: a process of ours has ended.
    """
    monitor = watch_servers(target)
    with open_generators(options, target, server, scenario) as links:
        conductor = Conductor(options, monitor, watcher, links)
        conductor.conduct()
    return Result(
        options=options,
        machine=description,
        tally=conductor.tally,
        steps=conductor.steps,
        samples=tuple(monitor.samples),
        complaints=tuple(dict.fromkeys(conductor.complaints)),
        generator_bytes=conductor.generator_bytes,
        watched_server=bool(monitor.pids),
        interrupted=conductor.interrupted,
    )


@contextmanager
def open_generators(
    options: BenchOptions, target: Target, server: int | None = None, scenario: type[Play] | None = None
) -> Iterator[list[Connection]]:
    """Links to so many processes, which end with the context."""
    # Forked from a server without threads or sockets, in which all modules are loaded: they share its memory.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trioroom.bench.generator", "trioroom.bench.scenarios"])
    shared = open_shared(context, options.processes, options.in_flight)
    links: list[Connection] = []
    processes: list[BaseProcess] = []
    try:
        for share in options.shares:
            ours, theirs = context.Pipe()
            arguments = (share, target, shared, theirs, server, scenario or SCENARIOS[options.scenario])
            process: BaseProcess = context.Process(target=generate, args=arguments, daemon=True)
            process.start()
            theirs.close()
            links.append(ours)
            processes.append(process)
        yield links
    finally:
        for link in links:
            link.close()
        for process in processes:
            process.join(_JOIN_TIMEOUT)
            if process.is_alive():
                process.kill()
                process.join()
