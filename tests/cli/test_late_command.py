"""Commands that are imported when they are called, and what that spares those who call another."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from tests.cli.conftest import open_command, run
from trioroom.cli import main
from trioroom.cli.late_command import LateCommand

TELLS_WHAT_IS_LOADED = """
import atexit
import sys
import trioroom

app = trioroom.App()
atexit.register(lambda: print("loaded", *sorted(sys.modules), "so far"))
"""
OF_OTHER_COMMANDS = {"publish", "bench", "join", "top", "check"}
NOT_FOR_A_SERVER = {
    *(f"trioroom.cli.{command}" for command in OF_OTHER_COMMANDS),
    "trioroom.bench", "trioroom.client", "trioroom.demo", "trioroom.testing",
    "trioroom._net.metrics", "trioroom._net.trio_websocket", "trioroom._net.tracing", "trioroom.cli.telemetry",
    "trioroom.backplane.redis", "trioroom.backplane.nats", "trioroom.backplane.kafka",
    "asyncio", "email", "h11", "http.client", "http.server", "importlib.metadata", "matplotlib", "opentelemetry",
    "prometheus_client", "rich", "trio_websocket", "wsproto",
}  # fmt: skip
"""What takes its time, and who serves rooms and no more has no need of."""


async def test_server_imports_what_it_needs_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(TELLS_WHAT_IS_LOADED)
    async with open_command("serve", "plain:app", "--port", "0", directory=tmp_path) as command:
        await command.wait_port()
        command.process.send_signal(signal.SIGTERM)
        loaded = {*(await command.wait_said("loaded (.*) so far"))[1].split(" ")}
    assert {"trioroom.cli.serve", "trioroom.server"} <= loaded
    assert loaded & NOT_FOR_A_SERVER == set()


def test_help_imports_no_command() -> None:
    program = (
        "import sys; from trioroom.cli import main; main(['--help'], standalone_mode=False);"
        "print('loaded', *(name for name in sys.modules if name.startswith('trioroom.cli.')))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "Serve an app" in said
    assert said.splitlines()[-1] == "loaded trioroom.cli.late_command"


@pytest.mark.parametrize("name", main.commands)
def test_command_that_is_loaded_has_the_name_it_is_known_by(name: str) -> None:
    command = main.commands[name]
    assert isinstance(command, LateCommand)
    assert command.load().name == name
    assert run(name, "--help").output.startswith(f"Usage: main {name} [OPTIONS]")


def test_command_that_is_misspelt_is_guessed() -> None:
    assert "Did you mean 'serve'?" in run("serv").output


def test_options_of_a_command_are_completed() -> None:
    completions = ShellComplete(main, {}, "trioroom", "_TRIOROOM_COMPLETE").get_completions(["join"], "--pre")
    assert [item.value for item in completions] == ["--presence"]


def test_errors_tell_which_command_was_called() -> None:
    with pytest.raises(click.UsageError) as caught:
        main(["join"], standalone_mode=False)
    assert caught.value.ctx is not None
    assert caught.value.ctx.command_path.endswith(" join")
