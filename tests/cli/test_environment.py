"""Variables that mean something, those that do not, and those that Kubernetes sets."""

from __future__ import annotations

import pytest

from tests.cli.conftest import open_command, run
from trioroom.cli.environment import unknown_variables

OF_KUBERNETES = {
    "TRIOROOM_SERVICE_HOST": "10.0.0.1",
    "TRIOROOM_SERVICE_PORT": "80",
    "TRIOROOM_SERVICE_PORT_HTTP": "80",
    "TRIOROOM_PORT_80_TCP": "tcp://10.0.0.1:80",
    "TRIOROOM_PORT_80_TCP_PROTO": "tcp",
    "TRIOROOM_PORT_80_TCP_PORT": "80",
    "TRIOROOM_PORT_80_TCP_ADDR": "10.0.0.1",
    "TRIOROOM_REDIS_PORT": "tcp://10.0.0.2:6379",
    "TRIOROOM_REDIS_SERVICE_HOST": "10.0.0.2",
}


def test_service_of_our_name_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIOROOM_PORT", "tcp://10.0.0.1:80")
    result = run("demo")
    assert result.exit_code == 2
    assert "Invalid value for TRIOROOM_PORT: 'tcp://10.0.0.1:80' is not a valid integer" in result.output
    assert "Kubernetes sets this variable for a Service called 'trioroom': write 'enableServiceLinks" in result.output
    monkeypatch.setenv("TRIOROOM_PORT", "eighty")
    assert "Kubernetes" not in run("demo").output


def test_other_variables_of_services_are_nothing_to_speak_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OF_KUBERNETES.items():
        monkeypatch.setenv(name, value)
    assert list(unknown_variables({"TRIOROOM_PORT"})) == []


async def test_unknown_variables_are_warned_of_once_with_what_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIOROOM_PROT", "80")
    monkeypatch.setenv("TRIOROOM_MAX_MESSAGE_BYTE", "1")
    async with open_command("demo", "--port", "0", "--workers", "2", "--backplane", "embedded") as command:
        await command.wait_port()
    for wrong, right in (("PROT", "PORT"), ("MAX_MESSAGE_BYTE", "MAX_MESSAGE_BYTES")):
        assert command.output.count(f"TRIOROOM_{wrong} means nothing here; did you mean TRIOROOM_{right}?") == 1


def test_variable_that_is_near_nothing_is_told_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIOROOM_ZZZZZZ", "")
    assert list(unknown_variables({"TRIOROOM_PORT"})) == ["the variable TRIOROOM_ZZZZZZ means nothing here"]
