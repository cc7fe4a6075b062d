"""``trioroom bench`` as a user runs it: each scenario, small, over processes of its own."""

from __future__ import annotations

import json
import re
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.conftest import server_port as server_port  # a fixture
from tests.cli.conftest import Ends, descendants, open_command, run
from trioroom.bench.options import Scenario
from trioroom.bench.server import url_on
from trioroom.cli.bench import bench

TOTAL = 40


def measured(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """The JSON of a run that is to succeed."""
    file = tmp_path / "result.json"
    result = run("bench", *arguments, "--json", str(file))
    assert result.exit_code == 0, result.output
    read: dict[str, Any] = json.loads(file.read_text())
    figures = {figure["name"]: figure["value"] for figure in read["figures"]}
    assert figures["members joined"] == read["counts"]["opened"]
    return read


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("scenario", [scenario for scenario in Scenario if scenario is not Scenario.CHURN])
def test_counts_of_all_processes_add_up(tmp_path: Path, server_port: int, scenario: Scenario, processes: str) -> None:
    options = ["--members", str(TOTAL), "--processes", processes, "--duration", "0.3", "--in-flight", "2"]
    read = measured(tmp_path, scenario.value, url_on(server_port, scenario), *options)
    counts = read["counts"]
    assert (counts["failed"], counts["closed"]) == (0, 0)
    assert counts["opened"] == TOTAL + (TOTAL - 1 if scenario is Scenario.RECOVERY else 0)
    if scenario is Scenario.FANOUT:
        assert (TOTAL - 1) * counts["sent"] <= counts["received"] <= TOTAL * counts["sent"]  # as to itself, see Fanout
        assert sum(times for _, times in read["last_member"]) == counts["sent"]
    elif scenario is Scenario.ECHO:
        assert counts["received"] == counts["sent"] > 0
    elif scenario is Scenario.ROOMS:
        assert sum(times for _, times in read["latencies"]) == 4 * counts["sent"] > 0
    elif scenario is Scenario.RECOVERY:
        assert counts["recovered"] == TOTAL - 1
        assert counts["received"] == 100 * (TOTAL - 1)


def test_churn_keeps_its_rate_over_processes(tmp_path: Path, server_port: int) -> None:
    options = ["--members", str(TOTAL), "--processes", "2", "--duration", "0.5", "--rate", "80", "--protocol", "v1"]
    counts = measured(tmp_path, "churn", url_on(server_port, Scenario.CHURN), *options)["counts"]
    assert (counts["left"], counts["opened"], counts["closed"]) == (40, TOTAL + 40, 0)


def test_own_server_is_started_measured_and_ended(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    read = measured(tmp_path, "idle", "--members", "200", "--duration", "0.6", "--html", str(page))
    figures = {figure["name"]: figure["value"] for figure in read["figures"]}
    assert figures["members joined"] == 200
    if sys.platform == "linux":
        assert 2_000 < figures["server memory per member"] < 50_000
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert text.count("<svg") == text.count("</svg>") >= 2
    assert "src=" not in text
    assert "members joined" in text


def test_result_is_a_table_on_standard_output(server_port: int) -> None:
    result = run("bench", "connect", url_on(server_port, Scenario.CONNECT), "--members", "20")
    assert result.exit_code == 0
    assert "members joined" in result.stdout
    assert "handshakes/s" in result.stdout
    assert "Python" in result.stdout


async def test_ctrl_c_prints_what_there_is_and_leaves_nothing_running() -> None:
    async with open_command("bench", "idle", "--members", "50", "--duration", "60", "--processes", "2") as command:
        await command.wait_said(r"stay")
        started = descendants(command.process.pid)
        assert len(started) >= 3  # a server and two generators at least
        ends = Ends(started)
        command.process.send_signal(signal.SIGINT)
        assert await command.wait_ended() == 1
        await ends.wait()
    assert "interrupted: what was measured until then" in command.output
    assert "members joined" in command.output
    assert "Traceback" not in command.output


async def test_generators_and_server_end_with_a_parent_that_is_killed() -> None:
    async with open_command("bench", "idle", "--members", "50", "--duration", "60") as command:
        await command.wait_said(r"stay")
        ends = Ends(descendants(command.process.pid))
        command.process.kill()
        await ends.wait()


def test_lost_server_is_an_error_and_the_reasons_are_told(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = run("bench", "connect", f"ws://127.0.0.1:{port}/", "--members", "7")
    assert result.exit_code == 1
    assert "7 connections: Connection refused" in result.stdout


def test_too_many_members_are_refused_before_anything_starts() -> None:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    result = run("bench", "idle", "--members", str(files + 1), "--processes", "1", "--connections", str(files + 1))
    assert result.exit_code == 1
    assert "this machine cannot do that" in result.output
    assert f"{files} open files" in result.output
    assert "add --processes 2" in result.output
    assert "--workers" in result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["recovery", "--protocol", "plain"], "add --protocol v1"),
        (["idle", "wss://127.0.0.1/"], "ws:// address"),
        (["rooms", "ws://127.0.0.1:1/all"], "write {n} into the URL"),
        (["idle", "--members", "100", "--processes", "2", "--connections", "10"], "fewer than 100 --members"),
        (["idle", "--members", "2", "--processes", "3"], "lower --processes"),
        (["nothing"], "'nothing' is not one of"),
    ],
)
def test_wrong_options_are_usage_errors(arguments: list[str], complaint: str) -> None:
    result = run("bench", *arguments)
    assert result.exit_code == 2
    assert complaint in result.output


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [("rich", []), ("matplotlib", ["--html", "report.html"])],
)
def test_missing_extra_is_named(missing: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)  # as if it were not installed
    result = run("bench", "idle", *arguments)
    assert result.exit_code == 1
    assert f"needs {missing}" in result.output
    assert "pip install 'trioroom[bench]'" in result.output


def test_reference_names_every_option() -> None:
    reference = (Path(__file__).parent.parent.parent / "docs" / "reference" / "command.md").read_text("utf-8")
    _, _, of_bench = reference.partition("## trioroom bench")
    documented = set(re.findall(r"^\| `(--[a-z-]+)", of_bench, re.M))
    assert documented == {option for parameter in bench.params for option in parameter.opts if option.startswith("--")}
