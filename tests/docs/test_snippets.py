"""Each code block of the documentation is checked here as far as it goes; what is run has a test of its own.

Blocks of a kind that is not in `CHECKS` fail: add a check, or move them to docs/examples, whose files are run.
"""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import jsonschema
import msgspec
import pytest
import yaml

from tests.docs.named_tests import ROOT
from tests.docs.snippets import Snippet, snippets
from tests.docs.write_schema import PATH as SCHEMA
from tests.web.conftest import node
from trioroom.backplane.open import import_backplane
from trioroom.cli import main
from trioroom.cli.assignments import NAMES, parse_settings
from trioroom.cli.configuration import configurable
from trioroom.cli.environment import variable_of
from trioroom.cli.late_command import LateCommand
from trioroom.cli.serve import serve

__all__ = ["node"]

EXAMPLES = ROOT / "docs" / "examples"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
SESSIONS = re.findall(r"@nox\.session\ndef (\w+)", (ROOT / "noxfile.py").read_text("utf-8"))
KEYS = {*dict(configurable(serve)), *NAMES}
VARIABLES = {variable_of(key) + file for key in KEYS for file in ("", "_FILE")} | {"TRIOROOM_CONFIG"}
DEFINITIONS = msgspec.json.decode(SCHEMA.read_bytes())["$defs"]
FRAMES = {
    arrow: jsonschema.Draft202012Validator({"$ref": f"#/$defs/{definition}", "$defs": DEFINITIONS})
    for arrow, definition in {"->": "ClientFrame", "<-": "ServerFrame"}.items()
}


def commands_of(snippet: Snippet) -> list[list[str]]:
    return [*snippet.commands()] if CHECKS[snippet.language] is check_commands else []


def check_commands(snippet: Snippet) -> None:
    """Commands of ours have such options, settings and URLs; programs, extras and sessions that are named exist."""
    for command in snippet.commands():
        program, *arguments = command
        if (name := program.rpartition("/")[2]) in PROGRAMS:
            PROGRAMS[name](arguments)
    assert {*re.findall(r"\bTRIOROOM_[A-Z_]+", snippet.text)} <= VARIABLES


def check_trioroom(arguments: list[str]) -> None:
    command = main.commands[arguments[0]]
    assert isinstance(command, LateCommand)
    command = command.load()
    context = click.Context(command, info_name=arguments[0])
    values, rest, _ = command.make_parser(context).parse_args(arguments[1:])
    assert rest == []
    for parameter in command.params:
        if isinstance(parameter.type, click.Choice | click.types.IntParamType | click.types.FloatParamType):
            parameter.type_cast_value(context, values.get(parameter.name))
    parse_settings(values.get("settings") or [])
    if "://" in (url := values.get("backplane") or ""):
        import_backplane(url)


def check_python(arguments: list[str]) -> None:
    if arguments[0] == "-m":
        check_pip(arguments[2:])
    elif arguments[0] != "-c":
        assert (EXAMPLES / arguments[0]).is_file()


def check_pip(arguments: list[str]) -> None:
    for extra in re.findall(r"(?:trioroom|\.)\[(\w+)\]", " ".join(arguments)):
        assert extra in EXTRAS


def check_nox(arguments: list[str]) -> None:
    assert not arguments or arguments[0] == "-s"
    assert {*arguments[1:2]} <= {*SESSIONS}


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "trioroom": check_trioroom,
    "python": check_python,
    "python3": check_python,
    "pip": check_pip,
    "nox": check_nox,
}


def check_frames(snippet: Snippet) -> None:
    """Frames of the protocol, behind an arrow each, are as its schema says; other text is what something prints."""
    for arrow, frame in re.findall(r"^(->|<-) (.*)$", snippet.text, re.M):
        FRAMES[arrow].validate(json.loads(frame))


def check_json(snippet: Snippet) -> None:
    value = json.loads(snippet.text)
    if "type" in value:
        FRAMES["<-"].validate(value)


def check_program(snippet: Snippet) -> None:
    """It is a file of the examples, which are run."""
    assert snippet.text in [path.read_text("utf-8") for path in EXAMPLES.glob("*.py")]


def check_unit(snippet: Snippet) -> None:
    """Of systemd; what it starts has such options."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.read_string(snippet.text)
    check_commands(Snippet(snippet.place, "sh", unit.get("Service", "ExecStart", fallback="")))


def check_yaml(snippet: Snippet) -> None:
    assert yaml.safe_load(snippet.text)


def check_nginx(snippet: Snippet) -> None:
    """A part of a file; test_proxies runs whole ones."""
    assert snippet.text.count("{") == snippet.text.count("}") > 0


CHECKS: dict[str, Callable[[Snippet], object]] = {
    "sh": check_commands,
    "bash": check_commands,
    "console": check_commands,
    "text": check_frames,
    "json": check_json,
    "toml": lambda snippet: tomllib.loads(snippet.text),  # test_configuration serves by it
    "yaml": check_yaml,
    "python": check_program,
    "ini": check_unit,
    "nginx": check_nginx,
    "javascript": lambda snippet: None,  # see below
}
FOUND = list(snippets())


def test_there_are_snippets() -> None:
    assert len(FOUND) > 80
    assert {snippet.language for snippet in FOUND} >= {"sh", "console", "text", "json", "toml", "python"}
    assert sum("<- {" in snippet.text for snippet in FOUND) > 5
    assert sum(command[0].endswith("trioroom") for snippet in FOUND for command in commands_of(snippet)) > 30


@pytest.mark.parametrize("snippet", FOUND, ids=lambda snippet: snippet.place)
def test_snippet_is_what_it_is_said_to_be(snippet: Snippet) -> None:
    assert snippet.language in CHECKS, "name its language behind the fence, such as text for what something prints"
    CHECKS[snippet.language](snippet)


def test_each_file_that_pages_include_is_in_a_page_and_in_a_test() -> None:
    pages = "\n".join(path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.md"))
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))
    for folder in ("examples", "deploy"):
        for path in (ROOT / "docs" / folder).iterdir():
            if path.is_file():
                assert f"{folder}/{path.name}" in pages or f"`{path.name}`" in pages, path.name
                ways = (
                    rf"\b{re.escape(path.name)}\b",
                    rf"^\s*from {path.stem} import",
                    rf"import [\w, ]*\b{path.stem}\b",
                )
                assert any(re.search(way, tests, re.M) for way in ways), f"no test runs or reads {path.name}"


def test_javascript_can_be_read(node: str, tmp_path: Path) -> None:
    parts = [snippet.text for snippet in FOUND if snippet.language == "javascript"]
    path = tmp_path / "snippets.mjs"
    path.write_text("\n".join(f"{{\n{part}}}" for part in parts), "utf-8")
    subprocess.run([node, "--check", path], check=True)


@pytest.mark.parametrize(
    "text",
    [
        "trioroom serve chat:app --prot 80",
        "trioroom serve chat:app --workers many",
        "trioroom serve chat:app --set ping_intervall=3",
        "trioroom serve chat:app --backplane rabbit://here",
        "TRIOROOM_WORKER=2 trioroom serve chat:app",
        "cd chat && trioroom bench fanuot 2>&1 | less",
        "python no_such_example.py",
        "pip install 'trioroom[everything]'",
        "nox -s benches",
    ],
)
def test_mistake_is_found(text: str) -> None:
    with pytest.raises((AssertionError, ValueError, click.ClickException)):
        check_commands(Snippet("here:1", "sh", text))
