"""Settings from all places: the file, then variables, then ``--set``; of several for one setting the last counts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import click

from trioroom.cli.assignments import NAMES, check_name, check_value, parse_assignment, parse_text, parse_toml
from trioroom.cli.config_file import SETTINGS
from trioroom.cli.configuration import Configuration, configuration_of
from trioroom.cli.environment import variable_of
from trioroom.settings import Settings

Read = Callable[[], tuple[str, object]]
"""Gives a setting's name and value, or raises ValueError."""


def collect_settings(ctx: click.Context, param: click.Parameter, assignments: Sequence[str]) -> Settings:
    """The callback of ``--set``. What is wrong goes to the faults of the configuration."""
    configuration = configuration_of(ctx)
    before = len(configuration.faults)
    chosen: dict[str, object] = {}
    for origin, where, read in _given(configuration, assignments):
        try:
            name, value = read()
            check_value(name, value)
        except (TypeError, ValueError) as exc:
            configuration.faults.append(click.BadParameter(str(exc.args[0]), param=param, param_hint=where))
        else:
            chosen[name] = value
            configuration.settings_from[name] = origin
    if len(configuration.faults) == before:
        try:
            return Settings(**chosen)  # type: ignore[arg-type]  # each has been checked
        except ValueError as exc:  # two that do not go together
            configuration.faults.append(click.BadParameter(str(exc), param=param, param_hint="the settings"))
    return Settings()


def _given(configuration: Configuration, assignments: Sequence[str]) -> Iterator[tuple[str, str, Read]]:
    """Where each comes from, how a complaint calls it, and how to read it."""
    file = str(configuration.file)
    for name, value in configuration.settings_of_file.items():
        yield file, f"[{SETTINGS}] in {file}", partial(_read_toml, name, value)
    for name in NAMES:
        variable = variable_of(name)
        if text := os.environ.get(variable):  # an empty one is none, as with options
            yield variable, variable, partial(_read_text, name, text)
    for assignment in assignments:
        yield "command line", "--set", partial(parse_assignment, assignment)


def _read_toml(name: str, value: object) -> tuple[str, object]:
    check_name(name)
    return name, parse_toml(name, value)


def _read_text(name: str, text: str) -> tuple[str, object]:
    return name, parse_text(name, text)
