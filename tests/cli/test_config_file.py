"""``--config FILE``: what may stand in it, and what is said of the rest."""

from __future__ import annotations

import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.cli.conftest import run
from trioroom.cli.config_file import load_config_file
from trioroom.cli.configuration import CommandLineOption, ConfiguredCommand


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("port = '8000'", "port in {} must be a whole number"),
        ("port = 8000.0", "port in {} must be a whole number"),
        ("port = true", "port in {} must be a whole number"),
        ("port-per-worker = 'yes'", "port-per-worker in {} must be true or false"),
        ("host = 4", "host in {} must be text"),
        ("tls-cert = ['a']", "tls-cert in {} must be text"),
        ("log_level = 'info'", "log_level in {} is no option of trioroom demo; did you mean log-level?"),
        ("worker = true", "worker in {} is no option of trioroom demo; did you mean workers?"),
        ("config = 'other.toml'", "config in {} is no option"),
        ("xyz = 1", "xyz in {} is no option of trioroom demo; there are: host, port, "),
        ("setting = {}", "setting in {} is no option of trioroom demo; did you mean settings?"),
        ("settings = 1", "settings in {} is a table"),
        ("set = ['backlog=1']", "set in {} is no option"),
        ("backlog = 1", "backlog in {} is no option of trioroom demo"),
        ("port: 1", "{} is no TOML: "),
        ("port = 1\nport = 2", "{} is no TOML: "),
        ("log-level = 'loud'", "log-level in {}: 'loud' is not one of"),
        ("tls-cert = 'nowhere.pem'", "tls-cert in {}: File "),
        ("[settings]\nbacklog = '1'", "[settings] in {}: backlog='1' must be a whole number"),
        ("[settings]\nbacklog = true", "[settings] in {}: backlog=True must be a whole number"),
        ("[settings]\nping_interval = '25'", "[settings] in {}: ping_interval='25' must be a number"),
        ("[settings]\nping_interval = nan", "[settings] in {}: 'ping_interval' must be > 0: nan"),
        ("[settings]\nmax_connections = 'inf'", "max_connections='inf' must be a whole number or \"none\""),
        ("[settings]\nallowed_origins = '*'", "allowed_origins='*' must be a list of texts or \"none\""),
        ("[settings]\nallowed_origins = [1]", "must be a list of texts"),
        ("[settings]\nroom_name_pattern = '('", "room_name_pattern='(' is no regular expression"),
    ],
)
def test_what_cannot_be_is_a_usage_error_that_names_the_place(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(text)
    result = run("demo", "--config", str(path))
    assert result.exit_code == 2
    assert complaint.replace("{}", str(path)) in result.output


def test_file_that_cannot_be_read_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes("host = 'ü'".encode("latin-1"))
    assert f"{path} is no TOML: " in run("demo", "--config", str(path)).output
    result = run("demo", "--config", str(tmp_path))
    assert result.exit_code == 2
    assert f"cannot read {tmp_path}: Is a directory" in result.output
    assert "cannot read nowhere.toml: No such file" in run("demo", "--config", "nowhere.toml").output


def test_settings_have_types_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(
        "[settings]\nping_interval = inf\nmax_message_rate = 10\nmax_connections = 'none'\nsocket_send_bytes = 'none'\n"
        "compression = true\nallowed_origins = ['https://a.example', 'https://b.example']\nroom_name_pattern = 'a.*'\n"
    )
    result = run("demo", "--check-config", "--config", str(path))
    assert result.exit_code == 0
    settings = tomllib.loads(result.stdout)["settings"]
    assert settings.items() >= tomllib.loads(path.read_text())["settings"].items()
    assert isinstance(settings["max_message_rate"], float)


def test_paths_in_a_file_are_seen_from_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "cert.pem").touch()
    (tmp_path / "etc" / "server.toml").write_text("tls-cert = 'cert.pem'")
    monkeypatch.chdir(tmp_path)
    result = run("demo", "--check-config", "--config", "etc/server.toml")
    assert tomllib.loads(result.stdout)["tls-cert"] == "etc/cert.pem"
    assert "does not exist" not in result.output


_FILE = click.Path(path_type=Path)


@click.command(cls=ConfiguredCommand)
@click.option("--config", type=_FILE, is_eager=True, cls=CommandLineOption, callback=load_config_file)
@click.option("--ratio", type=click.FloatRange(0, 1), default=0.5)
@click.option("--label", "labels", multiple=True)
def other(config: Path, ratio: float, labels: tuple[str, ...]) -> None:
    """A command with kinds of options that servers have not."""
    click.echo(f"{ratio} {labels}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ratio = 1", "1.0 ()"),
        ("ratio = 0.25\nlabel = ['a', 'b']", "0.25 ('a', 'b')"),
        ("ratio = 'half'", "ratio in {} must be a number"),
        ("ratio = 2.0", "ratio in {}: 2.0 is not in the range"),
        ("label = 'a'", "label in {} must be a list of texts"),
        ("labels = ['a']", "labels in {} is no option of trioroom other; did you mean label?"),
    ],
)
def test_options_of_other_kinds_have_their_types_too(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text(text)
    assert said.replace("{}", str(path)) in CliRunner().invoke(other, ["--config", str(path)]).output
