from __future__ import annotations

from typing import Any

import attrs
import pytest

from tests.bench.conftest import options_for
from trioroom.bench.html import render
from trioroom.bench.monitor import Sample
from trioroom.bench.options import Protocol, Scenario
from trioroom.bench.progress import print_result
from trioroom.bench.result import Figure, Measured, Result
from trioroom.bench.tally import Counts, StepDone, Tally


def result_of(scenario: Scenario, **changed: Any) -> Result:
    """Of a run that took 4 seconds, 2 of them to join."""
    tally = Tally(Counts(opened=20, left=40, sent=10, received=200, recovered=19))
    tally.latencies.add(0.5, times=200)
    tally.whole.add(0.75, times=10)
    tally.handshakes.add(0.25, times=20)
    opening, load = Measured(), Measured()
    for process, cpu in enumerate((0.2, 1.0)):
        opening.add(StepDone(process, "open", 10.0, 12.0, cpu))
        load.add(StepDone(process, "load", 12.0, 13.0 + process, cpu))
    measured = "back" if scenario is Scenario.RECOVERY else "load"
    result = Result(
        options=options_for(scenario),
        machine="a machine",
        tally=tally,
        steps={"open": opening, measured: load},
        samples=(
            Sample(0.0, 0, 0, 1_000, 5_000, 0.0),
            Sample(2.0, 20, 0, 101_000, 45_000, 1.0),
            Sample(2.0001, 20, 0, 101_000, 45_000, 1.0),
            Sample(4.0, 20, 200, 201_000, 85_000, 3.0),
        ),
        complaints=(),
        generator_bytes=4_000,
        watched_server=True,
        interrupted=False,
    )
    return attrs.evolve(result, **changed)


def test_figures_are_rates_of_the_step_that_is_measured() -> None:
    figures = {figure.name: figure.value for figure in result_of(Scenario.FANOUT).figures()}
    assert figures["handshakes/s"] == 10
    assert figures["deliveries"] == 200
    assert figures["deliveries/s"] == 100
    assert figures["delivery p99"] == pytest.approx(500, rel=1 / 64)
    assert figures["last member max"] == 750
    assert figures["server memory per member"] == 10_000
    assert not any("kernel" in name for name in figures)
    assert figures["generator memory per member"] == 200
    assert figures["generator CPU, busiest process"] == pytest.approx(50)
    assert figures["server CPU, highest"] == pytest.approx(100, rel=0.01)


def test_memory_of_the_kernel_is_told_where_it_stands_out() -> None:
    samples = (Sample(0.0, 0, 0, 0, 10_000_000, 0.0), Sample(1.0, 10_000, 0, 0, 90_000_000, 0.0))
    many = result_of(Scenario.IDLE, tally=Tally(Counts(opened=10_000)), samples=samples)
    assert {figure.name: figure.value for figure in many.figures()}["kernel memory per member, both ends"] == 8_000


@pytest.mark.parametrize(
    ("scenario", "name", "value"),
    [
        (Scenario.ECHO, "round trips/s", 100),
        (Scenario.CHURN, "members replaced/s", 20),
        (Scenario.RECOVERY, "recovered", 19),
        (Scenario.RECOVERY, "until all were back", 2),
    ],
)
def test_each_scenario_has_its_own_figures(scenario: Scenario, name: str, value: float) -> None:
    figures = {figure.name: figure.value for figure in result_of(scenario).figures()}
    assert figures[name] == value


def test_busy_generator_is_called_the_bottleneck() -> None:
    busy = Measured()
    busy.add(StepDone(0, "load", 0.0, 1.0, 0.95))
    assert not list(result_of(Scenario.FANOUT).notes())
    (note,) = result_of(Scenario.FANOUT, steps={"load": busy}).notes()
    assert note.startswith("the load generator was the bottleneck")


def test_what_went_wrong_is_noted_and_no_success() -> None:
    tally = Tally(Counts(failed=2))
    tally.reasons["Connection refused"] = 2
    result = result_of(Scenario.ECHO, tally=tally, steps={}, samples=(), complaints=("no answers",), interrupted=True)
    assert list(result.notes()) == [
        "interrupted: what was measured until then",
        "given up: no answers",
        "2 connections: Connection refused",
    ]
    assert not result.succeeded
    assert result_of(Scenario.ECHO).succeeded
    assert {figure.name: figure.value for figure in result.figures()}["failed to join"] == 2


def test_json_has_all_but_the_token() -> None:
    options = options_for(Scenario.ECHO, token="secret", protocol=Protocol.V1)
    written = result_of(Scenario.ECHO, options=options).as_json()
    assert "secret" not in str(written)
    assert written["steps"] == {"open": 2.0, "load": 2.0}
    assert written["succeeded"] is True


def test_page_shows_what_was_measured_and_escapes_what_others_said() -> None:
    tally = result_of(Scenario.FANOUT).tally
    tally.reasons["<script>"] = 1
    page = render(result_of(Scenario.FANOUT, tally=tally))
    for heading in ("Latency", "Time to the last member", "Handshakes", "Throughput", "Joining", "Server memory"):
        assert f"<h2>{heading}</h2><svg" in page
    assert "<script>" not in page
    assert "Server memory" not in render(result_of(Scenario.FANOUT, watched_server=False))


def test_table_is_printed_with_its_notes(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(result_of(Scenario.FANOUT, interrupted=True))
    printed = capsys.readouterr().out
    assert "deliveries/s" in printed
    assert "interrupted" in printed


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(522_000, "", "522,000"), (1.0, "ms", "1.00"), (4.25, "", "4.25"), (104_236.55, "", "104,237"), (0.0, "", "0")],
)
def test_figures_show_the_digits_that_count(value: float, unit: str, text: str) -> None:
    assert Figure("x", value, unit).text == text


def test_rates_lose_nothing_to_samples_at_almost_one_time() -> None:
    at = ((0.0, 0), (1.0, 10), (1.01, 30), (1.02, 50), (2.0, 60))
    samples = tuple(Sample(when, 0, received, 0, 0, 0.0) for when, received in at)
    rates = list(result_of(Scenario.ECHO, samples=samples).throughput())
    assert rates == [(1.0, 10.0), (2.0, 50.0)]
    assert not list(result_of(Scenario.ECHO, samples=()).throughput())
