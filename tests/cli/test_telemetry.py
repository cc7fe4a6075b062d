"""``--opentelemetry``: who provides the tracer, and where the spans go."""

from __future__ import annotations

import importlib.metadata
import signal
import sys
from pathlib import Path

import click
import pytest
import trio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from tests.cli.conftest import DEADLINE, open_command, open_remote_peer
from trioroom.cli import telemetry
from trioroom.cli.telemetry import configured_provider, exporter_names

ROOMS = """
import trioroom

class Chat(trioroom.Room):
    async def on_join(self, member):
        return "welcome"

app = trioroom.App()
app.route("{name}", Chat)
"""
OF_ITS_OWN = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

provider = TracerProvider()
exporter = ConsoleSpanExporter(sys.stdout, formatter=lambda span: f"own {span.name}\\n")
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
"""


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    (tmp_path / "rooms.py").write_text(ROOMS)
    return tmp_path


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is set as the provider of the process, which OpenTelemetry takes only once."""
    taken: list[object] = [trace.ProxyTracerProvider()]
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: taken[-1])
    monkeypatch.setattr(trace, "set_tracer_provider", taken.append)
    return taken


async def join_and_stop(*command_line: str, directory: Path) -> str:
    """What a server says that one has joined, and that was stopped then."""
    async with open_command("serve", "rooms:app", "--port", "0", *command_line, directory=directory) as command:
        async with open_remote_peer(await command.wait_port(), "/a") as peer:
            with trio.fail_after(DEADLINE):
                assert await peer.receive() == "welcome"
        command.process.send_signal(signal.SIGTERM)
        assert await command.wait_ended() == 0
    return command.output


async def test_spans_go_where_the_variables_say(rooms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "my-chat")
    output = await join_and_stop("--opentelemetry", directory=rooms)
    assert '"name": "on_join Chat"' in output
    assert '"service.name": "my-chat"' in output
    assert '"name": "on_join Chat"' not in await join_and_stop(directory=rooms)


@pytest.mark.redis
async def test_workers_trace_and_stay_forks(rooms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    output = await join_and_stop("--opentelemetry", "--workers", "2", "--backplane", "embedded", directory=rooms)
    assert '"name": "on_join Chat"' in output
    assert "do not share memory" not in output


async def test_provider_of_the_application_is_used(rooms: Path) -> None:
    (rooms / "rooms.py").write_text(OF_ITS_OWN + ROOMS)
    assert "own on_join Chat\n" in await join_and_stop("--opentelemetry", directory=rooms)


async def test_exporter_that_is_not_there_is_told_in_one_line(rooms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console,zipkin")
    async with open_command("serve", "rooms:app", "--port", "0", "--opentelemetry", directory=rooms) as command:
        assert await command.wait_ended() == 1
    assert command.output == (
        "Error: --opentelemetry needs the exporter 'zipkin', which this installation lacks; "
        "pip install opentelemetry-exporter-zipkin, or set OTEL_TRACES_EXPORTER\n"
    )


@pytest.mark.parametrize(
    ("variable", "names"),
    [
        (None, ["otlp"]),
        ("", ["otlp"]),
        ("none", []),
        ("console, zipkin", ["console", "zipkin"]),
    ],
)
def test_names_of_exporters_are_those_of_the_specification(
    variable: str | None, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)
    if variable is not None:
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", variable)
    assert exporter_names() == names


def test_otlp_is_found_by_its_protocols_too(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint("otlp_proto_grpc", "exporter:Exporter", telemetry._EXPORTERS)

    def entry_points(*, group: str, name: str) -> list[importlib.metadata.EntryPoint]:
        return [entry] if entry.matches(group=group, name=name) else []

    monkeypatch.setattr(telemetry, "entry_points", entry_points)
    assert telemetry._find_exporter("otlp") is entry


def test_provider_is_made_once(provider: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    made = configured_provider()
    assert isinstance(made, TracerProvider)
    assert configured_provider() is made
    made.shutdown()


@pytest.mark.parametrize(
    ("module", "package"),
    [("opentelemetry", "'trioroom[otel]' opentelemetry-sdk"), ("opentelemetry.sdk.trace", "opentelemetry-sdk")],
)
def test_what_is_not_installed_is_told(
    module: str, package: str, provider: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(click.ClickException) as raised:
        configured_provider()
    assert f"which this installation lacks; pip install {package}" in raised.value.message
