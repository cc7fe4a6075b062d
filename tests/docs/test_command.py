"""The reference of the command line has each command and each of its options, and no other."""

from __future__ import annotations

import re

import click
import pytest

from tests.docs.named_tests import ROOT
from trioroom.cli import main
from trioroom.cli.late_command import LateCommand

PAGE = (ROOT / "docs" / "reference" / "command.md").read_text("utf-8")
SECTIONS = {
    section.partition(" ")[0].partition("\n")[0]: section
    for section in re.split(r"^## trioroom ", PAGE, flags=re.M)[1:]
}
SAME_AS = {"demo": "serve"}  # which the page says in words


def command_of(name: str) -> click.Command:
    """With its options."""
    command = main.commands[name]
    assert isinstance(command, LateCommand)
    return command.load()


def options_of(command: click.Command) -> set[str]:
    """The first name of each that is for users."""
    shown = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
    return {param.opts[0] for param in shown}


def test_each_command_has_a_section() -> None:
    assert {*SECTIONS} == {name for name, command in main.commands.items() if not command.hidden}


@pytest.mark.parametrize("name", [name for name in SECTIONS if name not in SAME_AS])
def test_table_has_each_option(name: str) -> None:
    documented = set(re.findall(r"^\| `(--[a-z-]+)", SECTIONS[name], re.M))
    assert documented == options_of(command_of(name))


@pytest.mark.parametrize(("name", "other"), SAME_AS.items())
def test_options_are_the_same(name: str, other: str) -> None:
    assert f"options are those of `{other}`" in SECTIONS[name]
    assert options_of(command_of(name)) <= options_of(command_of(other))
