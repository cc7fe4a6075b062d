"""What is told of measurements: ratios, marks, who is ahead, the page, plots."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.peers.loads import LOADS, Load, understand
from tests.benchmarks.peers.plots import draw
from tests.benchmarks.peers.report import BEGIN, END, ahead, lines, markdown, write_into
from tests.benchmarks.peers.results import Measured, Results, load_results
from tests.benchmarks.peers.serving import Failed

ECHO, IDLE = LOADS["echo"], LOADS["idle"]


@pytest.fixture
def results() -> Results:
    """One who is ahead in echo and behind in memory, one who failed, one who is missing, one who is no library."""

    def echo(rate: float, p50: float, p99: float) -> dict[str, list[float]]:
        return {
            "round trips/s": [rate / 2, rate, rate * 3],
            "round trip p50": [p50] * 3,
            "round trip p99": [p99] * 3,
        }

    memory = "server memory per member"
    return Results(
        machine="Linux 6.1, a processor, 2 CPUs",
        date="2026-01-02",
        rounds=3,
        duration=5.0,
        versions={"trioroom": "trioroom 1", "picows": "picows 2", "ws": "ws 3", "send loop": "gcc 4"},
        missing={"socket.io": "npm is not on PATH"},
        members={"echo": 50},
        measured=[
            Measured("idle", "trioroom", {memory: [4_000.0, 5_000.0, 4_500.0]}),
            Measured("idle", "picows", {memory: [9_000.0] * 3}),
            Measured("idle", "ws", failure="lost without a close frame"),
            Measured("echo", "trioroom", echo(10_000, 2.0, 4.0)),
            Measured("echo", "picows", echo(20_000, 1.0, 3.9), busy=True, others=0.25),
            Measured("echo", "send loop", echo(90_000, 0.1, 0.2)),
        ],
    )


def test_ratio_is_of_medians_to_trioroom(results: Results) -> None:
    assert results.ratio(IDLE, IDLE.figures[0], "picows") == 2.0
    assert results.ratio(IDLE, IDLE.figures[0], "ws") is None
    told = list(lines(results, IDLE))
    assert told[1].endswith("9,000   x 2.00")
    assert told[-1].endswith("failed: lost without a close frame")


def test_page_has_tables_marks_and_reasons(results: Results) -> None:
    text = markdown(results, "performance")
    assert "| | bytes per idle member, 10,000 members | echo round trips/s, 50 members |" in text.replace("|  |", "| |")
    assert "| trioroom | 4,500 | 10,000 |" in text
    assert "| picows | 9,000 (2.00) | ≥ 20,000 (2.00) |" in text
    assert "| picows | ≤ 1.00 / ≤ 3.90 |" in text
    assert "ws failed under idle: lost without a close frame" in text
    assert "socket.io did not take part: npm is not on PATH" in text
    assert "other processes had up to 25% of the server's core" in text
    assert "](performance/echo.svg)" in text
    assert ".svg" not in markdown(results, None)


def test_libraries_that_are_ahead_are_named_and_near_ones_are_not(results: Results) -> None:
    assert list(ahead(results)) == [
        "- echo round trips/s, 50 members: picows (2.00 times)",
        "- ms of an echo p50, 50 members: picows (2.00 times)",
    ]


def test_results_are_written_between_the_marks_and_again(results: Results, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Head\n\n{BEGIN}\nold\n{END}\n\nFoot\n", "utf-8")
    for text in ("first", "second ≥"):
        write_into(page, text)
    assert page.read_text("utf-8") == f"# Head\n\n{BEGIN}\n\nsecond ≥\n\n{END}\n\nFoot\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="to put the results between"):
        write_into(page, "text")


def test_results_come_back_from_their_file_and_are_drawn(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path / "results.json")
    again = load_results(tmp_path / "results.json")
    assert again == results
    draw(again, tmp_path)
    drawn = (tmp_path / "echo.svg").read_text("utf-8")
    assert "echo round trips/s, 50 members (more is better)" in drawn
    assert "≥ 20,000" in drawn
    draw(results, tmp_path)
    assert (tmp_path / "echo.svg").read_text("utf-8") == drawn


def result(load: Load, sent: int = 10, received: int = 10, **changed: Any) -> dict[str, Any]:
    """What the bench writes."""
    figures = [{"name": figure.name, "value": 1.0} for figure in load.figures]
    counts = {"sent": sent, "received": received}
    return {"figures": figures, "counts": counts, "succeeded": True, "notes": [], **changed}


def test_run_in_which_members_were_lost_has_failed() -> None:
    assert understand(result(ECHO), ECHO).figures["round trips/s"] == 1.0
    with pytest.raises(Failed, match="3 connections: lost"):
        understand(result(ECHO, succeeded=False, notes=["3 connections: lost"]), ECHO)
    with pytest.raises(Failed, match="no figure for round trips/s"):
        understand(result(ECHO, figures=[]), ECHO)


@pytest.mark.parametrize(
    ("load", "received", "is_right"),
    [
        (ECHO, 10, True),
        (ECHO, 9, False),
        (ECHO, 100, False),  # an echo to everybody
        (Load("fanout", "fanout", 5, 2), 50, True),
        (Load("fanout", "fanout", 5, 2), 48, True),  # the publisher lacks its last two
        (Load("fanout", "fanout", 5, 2), 40, False),  # the publisher never gets its own
        (IDLE, 7, True),
    ],
)
def test_server_has_to_send_as_much_as_its_room_would(load: Load, received: int, is_right: bool) -> None:
    with nullcontext() if is_right else pytest.raises(Failed, match=f"10 messages brought {received} where"):
        understand(result(load, received=received), load)


def test_busy_generator_is_noticed() -> None:
    written = result(ECHO)
    assert not understand(written, ECHO).generator_busy
    written["figures"].append({"name": "generator CPU, busiest process", "value": 95.0})
    assert understand(written, ECHO).generator_busy
