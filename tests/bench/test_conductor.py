"""Generators as processes, conducted from here."""

from __future__ import annotations

import multiprocessing
import os
import signal
from itertools import pairwise

import attrs
import pytest

from tests.bench.conftest import options_for
from trioroom.bench.conductor import GeneratorDied, open_generators, run_bench
from trioroom.bench.options import BenchOptions, Scenario
from trioroom.bench.scenarios.base import Step
from trioroom.bench.server import url_on
from trioroom.bench.tally import Counts
from trioroom.bench.target import Target, parse_target


@attrs.define
class Notes:
    """A `Watcher` that remembers, and may do something at a step."""

    steps: list[str] = attrs.field(factory=list)
    opened: int = 0
    interrupt_at: str | None = None

    def begin(self, step: Step) -> None:
        self.steps.append(step.name)

    def move(self, counts: Counts, elapsed: float) -> None:
        self.opened = counts.opened
        if self.steps[-1] == self.interrupt_at:
            raise KeyboardInterrupt  # as Ctrl-C would, wherever it is then


def target_of(options: BenchOptions, port: int) -> Target:
    return parse_target([url_on(port, options.scenario)], options.protocol)


def test_steps_are_taken_together_and_watched(server_port: int) -> None:
    options = options_for(Scenario.FANOUT, processes=3)
    notes = Notes()
    result = run_bench(options, target_of(options, server_port), notes, "here")
    assert notes.steps == ["open", "warm_up", "settle", "load"] == list(result.steps)
    assert notes.opened == 20
    assert all(len(step.cpu_shares) == 3 for step in result.steps.values())
    assert result.tally.counts.received == 20 * result.tally.counts.sent
    assert result.succeeded
    assert result.watched_server
    assert result.machine == "here"


def test_interruption_keeps_what_was_counted(server_port: int) -> None:
    options = options_for(Scenario.ECHO, duration=60.0, processes=2)
    result = run_bench(options, target_of(options, server_port), Notes(interrupt_at="load"), "")
    assert result.interrupted
    assert result.tally.counts.opened == 20
    assert result.tally.counts.received > 0
    assert result.measured is not None
    assert not result.succeeded


def test_stall_ends_the_run_and_says_what_was_waited_for(server_port: int) -> None:
    options = options_for(Scenario.FANOUT, members=4, processes=2, patience=1.0)
    target = parse_target([f"ws://127.0.0.1:{server_port}/echo"], options.protocol)
    result = run_bench(options, target, Notes(), "")
    assert list(result.steps) == ["open", "warm_up"]
    assert any("does it publish to each?" in complaint for complaint in result.complaints)


def test_death_of_a_generator_is_told(server_port: int) -> None:
    options = options_for(Scenario.IDLE, duration=60.0)

    class Killer(Notes):
        def move(self, counts: Counts, elapsed: float) -> None:
            if self.steps[-1] == "stay":
                for pid in generators():
                    os.kill(pid, signal.SIGKILL)

    with pytest.raises(GeneratorDied, match="generator 0 has ended"):
        run_bench(options, target_of(options, server_port), Killer(), "")


def generators() -> set[int]:
    """The processes that run for us."""
    return {process.pid for process in multiprocessing.active_children() if process.pid is not None}


def test_generators_are_gone_when_the_context_is(server_port: int) -> None:
    options = options_for(Scenario.IDLE, processes=2)
    with open_generators(options, target_of(options, server_port)):
        assert len(generators()) == 2
    assert not generators()


def test_samples_follow_the_generators_and_miss_none_of_their_ticks(server_port: int) -> None:
    options = options_for(Scenario.ECHO, duration=1.2, processes=2)
    samples = run_bench(options, target_of(options, server_port), Notes(), "").samples
    load = [sample for sample in samples if sample.received]
    assert len(load) >= 4
    rates = [after.received - before.received for before, after in pairwise(load) if after.at - before.at > 0.2]
    assert all(rates), "a sample between two ticks would see nothing, and the next one twice as much"
