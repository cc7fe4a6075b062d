"""``--config FILE``: options and settings in TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from trioroom.cli.configuration import Configuration, configurable, configuration_of
from trioroom.cli.suggestions import did_you_mean

SETTINGS = "settings"
"""The table with what ``--set`` changes."""


def load_config_file(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """The callback of ``--config``: what stands in the file goes before the defaults of the options.

    Raises:
        click.BadParameter: it is no TOML. What is wrong in it goes to the faults of the configuration.
    """
    if path is None:
        return None
    configuration = configuration_of(ctx)
    configuration.file = path
    table = _read(path)
    settings = table.pop(SETTINGS, {})
    if isinstance(settings, dict):
        configuration.settings_of_file = settings
    else:
        _complain(configuration, SETTINGS, "is a table: write [settings], and each of them below")
    ctx.default_map = dict(_values(ctx.command, table, configuration))
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise click.BadParameter(f"cannot read {path}: {exc.strerror}") from exc
    except ValueError as exc:  # no UTF-8, no TOML
        raise click.BadParameter(f"{path} is no TOML: {exc}") from exc


def _values(command: click.Command, table: dict[str, Any], configuration: Configuration) -> Iterator[tuple[str, Any]]:
    """Names of parameters and what the file has for them."""
    assert configuration.file is not None
    params = dict(configurable(command))
    for key, value in table.items():
        if (param := params.get(key)) is None:
            hint = did_you_mean(key, [*params, SETTINGS]) or f"; there are: {', '.join(params)}, and [{SETTINGS}]"
            _complain(configuration, key, f"is no option of trioroom {command.name}{hint}")
        elif (wanted := _unlike(param, value)) is not None:
            _complain(configuration, key, f"must be {wanted}")
        else:
            assert param.name is not None
            is_path = isinstance(param.type, click.Path)
            yield param.name, configuration.file.parent / value if is_path else value


def _unlike(param: click.Parameter, value: object) -> str | None:
    """What ``value`` should be; None if it is. Click would make 1 of true, and 8000 of 8000.7 or of a text."""
    if isinstance(param, click.Option) and param.is_flag:
        return None if isinstance(value, bool) else "true or false"
    if isinstance(param, click.Option) and param.multiple:
        is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return None if is_list else "a list of texts"
    if isinstance(param.type, type(click.INT)):  # of which the ranges are, too
        return None if type(value) is int else "a whole number"
    if isinstance(param.type, type(click.FLOAT)):
        return None if type(value) in (int, float) else "a number"
    return None if isinstance(value, str) else "text"


def _complain(configuration: Configuration, key: str, message: str) -> None:
    configuration.faults.append(click.UsageError(f"{key} in {configuration.file} {message}"))
