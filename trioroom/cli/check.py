"""``--check-config``: what the configuration is, where each value comes from, and all that is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

import attrs
import click
import trio

from trioroom import __version__
from trioroom._core.causes import leaves_of
from trioroom.app import App, check_rooms
from trioroom.cli.config_file import SETTINGS
from trioroom.cli.configuration import configurable, configuration_of, origin_of
from trioroom.cli.run import ServeOptions, open_link
from trioroom.cli.secret_options import SecretOption
from trioroom.cli.workers import check_linked, check_ports
from trioroom.errors import BackplaneUnavailable

_BACKPLANE_TIMEOUT = 10.0  # seconds for what may be several addresses, each with a timeout of its own

Check = tuple[Sequence[str], Callable[[ServeOptions], object]]
"""The parameters that it looks at, and what raises `click.ClickException` if they do not go together."""


def check(app: App | None, options: ServeOptions, more: Sequence[Check] = ()) -> None:
    """Print the configuration, its warnings and its faults.

    Raises:
        click.exceptions.Exit: always; with 0 if there are no faults and with 2 if there are.
    """
    ctx = click.get_current_context()
    configuration = configuration_of(ctx)
    faults = [fault.format_message() for fault in configuration.faults]
    checks: list[Check] = [
        *more,
        (("workers", "backplane"), check_linked),
        (("workers", "port", "port_per_worker"), check_ports),
        (("backplane",), lambda options: trio.run(_check_backplane, app, options.backplane)),
    ]
    for names, run in checks:
        if configuration.faulty.isdisjoint(names):
            faults += _faults_of(run, options)
    click.echo("\n".join(describe(ctx, options)))
    for warning in configuration.warnings:
        click.echo(f"Warning: {warning}", err=True)
    for fault in faults:
        click.echo(f"Error: {fault}", err=True)
    if not faults:
        click.echo("The configuration is fine.", err=True)
    raise click.exceptions.Exit(click.UsageError.exit_code if faults else 0)


def _faults_of(run: Callable[[ServeOptions], object], options: ServeOptions) -> list[str]:
    failures: list[BaseException] = []
    try:
        run(options)
    except* click.ClickException as group:
        failures = leaves_of(group)
    return [failure.format_message() for failure in failures if isinstance(failure, click.ClickException)]


async def _check_backplane(app: App | None, url: str) -> None:
    """Whether it lets us in and can do what the rooms want. That it cannot be reached from here and now is no fault."""
    configuration = configuration_of(click.get_current_context())
    try:
        with trio.fail_after(_BACKPLANE_TIMEOUT):
            async with open_link(url) as backplane:
                if app is not None:
                    check_rooms(app, backplane)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    except click.ClickException as exc:
        if url == "embedded" or not isinstance(exc.__cause__, BackplaneUnavailable):
            raise  # whatever machine this is
        configuration.warnings.append(f"{exc.format_message()}; this would keep a server from starting")
    except trio.TooSlowError:
        configuration.warnings.append(f"no answer from the backplane within {_BACKPLANE_TIMEOUT:g} s")


# -- the configuration as a file of --config -------------------------------------------------------


def describe(ctx: click.Context, options: ServeOptions) -> Iterator[str]:
    """Lines of TOML that say the same as what was read, with comments that say where it came from."""
    configuration = configuration_of(ctx)
    yield f"# trioroom {__version__}, {ctx.command_path}"
    for key, param in configurable(ctx.command):
        assert param.name is not None
        value = configuration.app_name if param.name == "app" else ctx.params.get(param.name)
        line = f"# {key} is wrong" if param.name in configuration.faulty else _line(key, param, value)
        yield _with_comment(line, origin_of(ctx, param))
    yield ""
    yield f"[{SETTINGS}]"
    for name, value in attrs.asdict(options.settings, recurse=False).items():
        origin = configuration.settings_from.get(name, "default")
        yield _with_comment(f"{name} = {format_toml(value)}", origin)


def _line(key: str, param: click.Parameter, value: object) -> str:
    if value is None or value == "":
        return f"# {key} is not set"
    if isinstance(param, SecretOption):
        shown = param.shown(str(value))
        return f"# {key} is set" if shown is None else f"{key} = {format_toml(shown)}"
    return f"{key} = {format_toml(value)}"


def _with_comment(line: str, origin: str) -> str:
    return f"{line:<48}  # {origin}"


def format_toml(value: object) -> str:
    """A value of an option or a setting as it stands in TOML, which has no null: None is the text ``none``."""
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | int):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(format_toml, value))}]"
    # Its escapes are those of JSON, less the pairs of surrogates, and DEL has to be escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
