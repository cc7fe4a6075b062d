"""Where the values of a command come from: its command line, the environment, a file, or its own defaults.

A `ConfiguredCommand` gives every option it has a variable and a key in the file, both named after the option; click
then asks them in this order. What is wrong is told all at once, and `origin_of` tells where a value came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import click
from click.core import ParameterSource

from trioroom.cli.assignments import NAMES
from trioroom.cli.environment import PREFIX, explain_kubernetes, unknown_variables, variable_of
from trioroom.cli.secret_options import SecretOption

_META = "trioroom.configuration"


@attrs.define
class Configuration:
    """What is known of the values of one command besides themselves; get it from `configuration_of`."""

    file: Path | None = None
    settings_of_file: dict[str, object] = attrs.field(factory=dict)
    """The table ``settings``, as it stands there."""
    settings_from: dict[str, str] = attrs.field(factory=dict)
    """Where those settings come from that are not left at their defaults."""
    app_name: str = ""
    """MODULE:APP, as it was given."""
    faults: list[click.UsageError] = attrs.field(factory=list)
    """What is wrong."""
    warnings: list[str] = attrs.field(factory=list)
    """What is odd, to be told once somebody listens."""

    @property
    def faulty(self) -> set[str]:
        """Names of the parameters that have no value, as theirs is wrong."""
        return {
            fault.param.name
            for fault in self.faults
            if isinstance(fault, click.BadParameter) and fault.param is not None and fault.param.name is not None
        }


def configuration_of(ctx: click.Context) -> Configuration:
    """The one of the command that is being run."""
    configuration: Configuration = ctx.meta[_META]
    return configuration


def is_check(ctx: click.Context | None) -> bool:
    """Whether ``--check-config`` is given."""
    return ctx is not None and bool(ctx.params.get("check_config"))


class Misconfigured(click.UsageError):
    """Several faults; the usage would not help with them."""

    def __init__(self, faults: list[click.UsageError]) -> None:
        lines = "".join(f"\n- {fault.format_message()}" for fault in faults)
        super().__init__(f"{len(faults)} faults in the configuration:{lines}")


class CommandLineOption(click.Option):
    """An option that no file gives, and no variable unless it names one."""


class ConfiguredCommand(click.Command):
    """A command whose options may also stand in the environment and in a file."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for param in self.params:
            if (key := key_of(param)) is not None and param.envvar is None:
                param.envvar = variable_of(key)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it, but what is wrong is told together: here, or by ``--check-config`` with what it finds."""
        given, configuration = list(args), _begin(ctx)
        try:
            left = super().parse_args(ctx, args)
        except click.UsageError as exc:
            configuration = _begin(ctx)
            configuration.faults[:0] = self._faults(ctx, list(given)) or [exc]
        if not configuration.faults:
            configuration.warnings = list(unknown_variables(self.variables()))
            return left
        if not is_check(ctx):
            raise configuration.faults[0] if len(configuration.faults) == 1 else Misconfigured(configuration.faults)
        return self._parse_what_is_right(ctx, given)

    def variables(self) -> set[str]:
        """All that mean something."""
        known = {variable_of(name) for name in NAMES}
        for param in self.params:
            known |= set(param.variables) if isinstance(param, SecretOption) else {str(param.envvar)}
        return known

    def _faults(self, ctx: click.Context, args: list[str]) -> list[click.UsageError]:
        """Of all parameters; none if the command line cannot be taken apart."""
        try:
            values, left, _ = self.make_parser(ctx).parse_args(args)
        except click.UsageError:
            return []
        faults = []
        for param in sorted(self.get_params(ctx), key=lambda param: not param.is_eager):
            try:
                _, left = param.handle_parse_result(ctx, values, left)
            except click.UsageError as exc:
                faults.append(_located(ctx, exc))
        return faults

    def _parse_what_is_right(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Once more, so that every parameter has a value; it is None where that is wrong."""
        faults = configuration_of(ctx).faults
        _begin(ctx)
        ctx.resilient_parsing = True
        try:
            return super().parse_args(ctx, args)
        finally:
            ctx.resilient_parsing = False
            configuration_of(ctx).faults = faults


def _begin(ctx: click.Context) -> Configuration:
    ctx.default_map = None
    ctx.params.clear()
    configuration = ctx.meta[_META] = Configuration()
    return configuration


def key_of(param: click.Parameter) -> str | None:
    """What ``param`` is called in the file; None if it cannot stand there."""
    if isinstance(param, click.Argument):
        return param.name
    if isinstance(param, CommandLineOption) or (isinstance(param, click.Option) and param.hidden):
        return None
    return next((name.removeprefix("--") for name in param.opts if name.startswith("--")), None)


def configurable(command: click.Command) -> Iterator[tuple[str, click.Parameter]]:
    """Each parameter that may stand in the environment and the file, with its key."""
    for param in command.params:
        if (key := key_of(param)) is not None:
            yield key, param


def origin_of(ctx: click.Context, param: click.Parameter) -> str:
    """Where its value comes from, in the words of a reader."""
    assert param.name is not None
    source = ctx.get_parameter_source(param.name)
    if source is ParameterSource.COMMANDLINE:
        return "command line"
    if source is ParameterSource.ENVIRONMENT:
        return param.variable if isinstance(param, SecretOption) else str(param.envvar)
    if source is ParameterSource.DEFAULT_MAP:
        return str(configuration_of(ctx).file)
    return "default"


def _located(ctx: click.Context, fault: click.UsageError) -> click.UsageError:
    """``fault``, which then tells where the wrong value is."""
    if not isinstance(fault, click.BadParameter) or fault.param is None or fault.param_hint is not None:
        return fault
    origin = origin_of(ctx, fault.param)
    if origin.startswith(PREFIX):
        where, message = origin, fault.message + explain_kubernetes(origin)
    elif origin == str(configuration_of(ctx).file):
        where, message = f"{key_of(fault.param)} in {origin}", fault.message
    else:
        return fault
    return click.BadParameter(message, fault.ctx, fault.param, where)
