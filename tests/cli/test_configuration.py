"""Values from four places: which one counts, that every option has all four, and that what is wrong is told at once."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import attrs
import click
import pytest
from click.testing import CliRunner, Result

from trioroom.cli import main
from trioroom.cli.assignments import NAMES
from trioroom.cli.check import format_toml
from trioroom.cli.configuration import configurable, key_of
from trioroom.cli.environment import variable_of
from trioroom.cli.secret_options import SecretOption
from trioroom.cli.serve import demo, serve
from trioroom.settings import Settings

KEY = "0123456789abcdef-only-for-tests"
OPTIONS = dict(configurable(serve))


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    """``trioroom`` in this process, with these variables and none of the machine's that begin as ours do."""
    return CliRunner(env=env).invoke(main, list(arguments))


def checked(*arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """What ``trioroom demo`` would take: the file that ``--check-config`` prints, read again."""
    result = run("demo", "--check-config", *arguments, env=env)
    assert result.exit_code == 0, result.output
    return tomllib.loads(result.stdout)


def origins(*arguments: str, env: dict[str, str] | None = None) -> dict[str, str]:
    """Where ``--check-config`` says that each value comes from."""
    result = run("demo", "--check-config", *arguments, env=env)
    lines = [line.rpartition("  # ") for line in result.stdout.splitlines() if "  # " in line]
    return {line.removeprefix("# ").split()[0]: origin for line, _, origin in lines}


def written(path: Path, text: str) -> str:
    path.write_text(text, "utf-8")
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "server.toml"


# -- which one counts ------------------------------------------------------------------------------


def test_command_line_goes_before_environment_before_file_before_default(file: Path) -> None:
    path = written(file, "port = 1\nworkers = 1\nhost = 'file'\nlog-level = 'error'\n")
    env = {"TRIOROOM_PORT": "2", "TRIOROOM_HOST": "environment"}
    taken = checked("--config", path, "--port", "3", env=env)
    assert (taken["port"], taken["host"], taken["log-level"], taken["backplane"]) == (
        3,
        "environment",
        "error",
        "memory",
    )
    told = origins("--config", path, "--port", "3", env=env)
    assert told["port"] == "command line"
    assert told["host"] == "TRIOROOM_HOST"
    assert told["log-level"] == path
    assert told["backplane"] == "default"


def test_each_setting_is_taken_from_the_first_place_that_has_it(file: Path) -> None:
    path = written(file, "[settings]\nbacklog = 1\nmax_headers = 1\nmax_fragments = 1\n")
    env = {"TRIOROOM_BACKLOG": "2", "TRIOROOM_MAX_HEADERS": "2"}
    arguments = ("--config", path, "--set", "backlog=3")
    taken = checked(*arguments, env=env)["settings"]
    assert (taken["backlog"], taken["max_headers"], taken["max_fragments"]) == (3, 2, 1)
    told = origins(*arguments, env=env)
    assert (told["backlog"], told["max_headers"], told["max_fragments"], told["compression"]) == (
        "command line", "TRIOROOM_MAX_HEADERS", path, "default",
    )  # fmt: skip


def test_file_may_be_named_by_a_variable(file: Path) -> None:
    assert checked(env={"TRIOROOM_CONFIG": written(file, "port = 1\n")})["port"] == 1


def test_empty_variable_is_none() -> None:
    assert checked(env={"TRIOROOM_PORT": "", "TRIOROOM_BACKLOG": ""})["port"] == 8000


# -- every option, every setting -------------------------------------------------------------------

SAMPLES: dict[str, tuple[str, object]] = {
    "backplane": ("embedded", "embedded"), "log-level": ("error", "error"), "api-key": (KEY, None),
}  # fmt: skip
"""A value for options that do not take any: as text, and as `--check-config` shows it."""


def sample(key: str, param: click.Parameter, directory: Path) -> tuple[str, object]:
    """A value that is not the default, in the same ways; chosen by its type, so that new options are tried too."""
    if key in SAMPLES:
        return SAMPLES[key]
    if isinstance(param, click.Option) and param.is_flag:
        return "true", True
    if isinstance(param.type, type(click.INT)):
        return "2", 2
    if isinstance(param.type, type(click.FLOAT)):
        return "2.5", 2.5
    if isinstance(param.type, click.Choice):
        other = str(param.type.choices[-1])
        return other, other
    path = directory / key
    path.touch()
    return str(path), str(path)


@pytest.mark.parametrize("key", [key for key, _ in configurable(demo)])
@pytest.mark.parametrize("place", ["environment", "file"])
def test_every_option_may_come_from_everywhere(key: str, place: str, tmp_path: Path, file: Path) -> None:
    text, shown = sample(key, OPTIONS[key], tmp_path)
    if place == "environment":
        arguments: tuple[str, ...] = ()
        env, origin = {variable_of(key): text}, variable_of(key)
    else:
        native = text if isinstance(OPTIONS[key], SecretOption) else shown
        arguments = ("--config", written(file, f"{key} = {format_toml(native)}\n"))
        env, origin = {}, str(file)
    result = run("demo", "--check-config", *arguments, env=env)  # some need a companion, which is a fault then
    assert tomllib.loads(result.stdout).get(key) == shown
    assert origins(*arguments, env=env)[key] == origin


def as_text(value: object) -> str:
    """How ``--set`` and variables have it."""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_may_come_from_everywhere(name: str, file: Path) -> None:
    value = attrs.asdict(Settings())[name]
    path = written(file, f"[settings]\n{name} = {format_toml(value)}\n")
    assert origins("--config", path)[name] == path
    assert checked("--config", path) == checked()
    if text := as_text(value):  # an empty variable is none
        variable = variable_of(name)
        assert origins(env={variable: text})[name] == variable
        assert checked(env={variable: text}) == checked()


def test_no_variable_means_two_things() -> None:
    variables = [variable for param in serve.params for variable in _variables_of(param)]
    variables += [variable_of(name) for name in NAMES]
    assert len(variables) == len({*variables})


def _variables_of(param: click.Parameter) -> list[str]:
    if isinstance(param, SecretOption):
        return [*param.variables]
    return [str(param.envvar)] if param.envvar else []


def test_options_for_processes_that_trioroom_starts_are_for_these_only() -> None:
    hidden = [param for param in serve.params if isinstance(param, click.Option) and param.hidden]
    assert {param.name for param in hidden} >= {"worker", "fork_server"}
    assert [param.envvar for param in hidden if param.envvar is not None or key_of(param) is not None] == []


def test_options_that_sound_secret_are_never_shown() -> None:
    for key, param in OPTIONS.items():
        if any(word in key for word in ("api-key", "password", "token", "secret")):
            assert isinstance(param, SecretOption), f"give {key} cls=SecretOption"


def test_what_is_printed_is_a_file_that_says_the_same(file: Path) -> None:
    settings = ("--set", 'allowed_origins=https://a.example,https://"ü.example', "--set", "ping_interval=inf")
    first = run("demo", "--check-config", "--port", "9", *settings).stdout
    again = run("demo", "--check-config", "--config", written(file, first)).stdout
    assert tomllib.loads(again) == tomllib.loads(first)
    assert tomllib.loads(first)["settings"]["allowed_origins"] == ["https://a.example", 'https://"ü.example']
    assert tomllib.loads(first)["settings"]["ping_interval"] == math.inf


# -- what is wrong ---------------------------------------------------------------------------------


def test_all_that_is_wrong_is_told_at_once(file: Path) -> None:
    path = written(file, "prot = 80\nworkers = true\n[settings]\nmax_header = 3\ncompression = 1\n")
    result = run("demo", "--config", path, "--port", "x", env={"TRIOROOM_LOG_LEVEL": "loud", "TRIOROOM_BACKLOG": "-1"})
    assert result.exit_code == 2
    lines = result.output.splitlines()
    assert lines[0] == "Error: 7 faults in the configuration:"
    complaints = "\n".join(sorted(lines[1:]))
    for expected in (
        "--port': 'x' is not a valid integer",
        f"[settings] in {path}: no setting is called 'max_header'; did you mean max_headers?",
        f"[settings] in {path}: compression=1 must be true or false",
        "TRIOROOM_BACKLOG: 'backlog' must be > 0: -1",
        "TRIOROOM_LOG_LEVEL: 'loud' is not one of",
        f"prot in {path} is no option of trioroom demo; did you mean port?",
        f"workers in {path} must be a whole number",
    ):
        assert expected in complaints


def test_value_that_the_option_refuses_is_told_with_the_place_in_the_file(file: Path) -> None:
    result = run("demo", "--config", written(file, "port = 65536\n"))
    assert result.exit_code == 2
    assert f"Invalid value for port in {file}: 65536 is not in the range" in result.output


def test_settings_that_do_not_go_together_are_told_wherever_they_are_from(file: Path) -> None:
    path = written(file, "[settings]\nping_timeout = 30\n")
    assert checked("--config", path, env={"TRIOROOM_PING_INTERVAL": "60"})["settings"]["ping_timeout"] == 30.0
    result = run("demo", "--config", path)
    assert result.exit_code == 2
    assert "Invalid value for the settings: ping_timeout=30 must be below ping_interval=25" in result.output


def test_command_line_that_cannot_be_taken_apart_is_told_as_ever() -> None:
    result = run("demo", "--prot", "1", "--port", "x")
    assert result.exit_code == 2
    assert "No such option" in result.output
    checking = run("demo", "--check-config", "--prot", "1")
    assert checking.exit_code == 2
    assert "No such option" in checking.output


def test_application_may_be_named_in_the_file(file: Path) -> None:
    path = written(file, 'app = "trioroom.demo.app:app"\n')
    result = run("serve", "--check-config", "--config", path)
    assert result.exit_code == 0, result.output
    assert tomllib.loads(result.stdout)["app"] == "trioroom.demo.app:app"
    assert run("serve", "--check-config", env={"TRIOROOM_APP": "trioroom.demo.app"}).exit_code == 0
    assert "Missing argument 'MODULE:APP'" in run("serve").output
