"""``trioroom serve`` and ``trioroom demo``."""

from __future__ import annotations

import importlib
import logging
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any, TypeVar

import attrs
import click
import trio

from trioroom._core.api_key import ApiKey
from trioroom._core.causes import leaves_of
from trioroom._net.gc_policy import server_gc_policy
from trioroom.app import App
from trioroom.backplane.open import import_backplane
from trioroom.cli.config_file import load_config_file
from trioroom.cli.configuration import CommandLineOption, ConfiguredCommand, configuration_of, is_check
from trioroom.cli.dumps import ignore_dump_signal
from trioroom.cli.forksafety import reason_of_system
from trioroom.cli.forkserver import fork_workers
from trioroom.cli.lifeline import end_with_parent
from trioroom.cli.logs import log_as_json, raise_or_log, set_up
from trioroom.cli.open_files import raise_limit_of_open_files
from trioroom.cli.run import ServeOptions, serve_until_signal
from trioroom.cli.secret_options import SecretOption, SecretUrlOption
from trioroom.cli.setting_sources import collect_settings
from trioroom.cli.signals import ignore_signals
from trioroom.cli.tls import survive_hangups, tls_files
from trioroom.cli.workers import serve_with_workers
from trioroom.errors import BackplaneError

log = logging.getLogger("trioroom.configuration")

Command = TypeVar("Command", bound=Callable[..., Any])
_PEM = click.Path(exists=True, dir_okay=False, path_type=Path)


_EPILOG = (
    "What is not given here is taken from the environment (--log-level: TRIOROOM_LOG_LEVEL, --set backlog=64: "
    "TRIOROOM_BACKLOG), then from the file of --config."
)


class AppType(click.ParamType[App]):
    """``MODULE:APP``, imported; the current directory comes first on the path."""

    name = "module:app"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> App:
        """The `App` that ``value`` names; a usage error in one line when there is none."""
        module_name, _, attribute = value.partition(":")
        attribute = attribute or "app"
        if sys.path[:1] != [""]:
            sys.path.insert(0, "")
        app = getattr(self._import(module_name, ctx), attribute, None)
        if not isinstance(app, App):
            self.fail(f"module {module_name!r} has no trioroom.App called {attribute!r}; write MODULE:APP")
        if ctx is not None:
            configuration_of(ctx).app_name = str(value)
        return app

    def _import(self, name: str, ctx: click.Context | None) -> ModuleType:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as exc:
            if exc.name is not None and f"{name}.".startswith(f"{exc.name}."):
                self.fail(f"no module {name!r} here or on the Python path; {_what_to_write(name)}")
            if not is_check(ctx):
                raise  # something that the module itself imports: its traceback says where
            self.fail(f"importing {name!r} fails: {exc}")
        except Exception as exc:
            if not is_check(ctx):
                raise
            self.fail(f"importing {name!r} fails: {type(exc).__name__}: {exc}")


def _what_to_write(name: str) -> str:
    """Instead of ``name``, which may be a file's, as other programs take it."""
    path = PurePath(name)
    if path.suffix != ".py":
        return "write MODULE:APP, as in chat:app"
    where = "" if path.parent == PurePath() else f"go to {path.parent}, and "
    return f"a file is no module; {where}write {path.stem}:app"


def _check_api_key(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    try:
        if value is not None:
            ApiKey(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc
    return value


def _begin_logs(ctx: click.Context, param: click.Parameter, log_format: str) -> str:
    """Before MODULE is imported, which may warn, fail and take its time."""
    ignore_dump_signal()
    if log_format == "json" and not is_check(ctx):
        log_as_json()
    return log_format


def _begin_worker(ctx: click.Context, param: click.Parameter, worker: bool) -> bool:
    """Before MODULE is imported, which may hang."""
    if worker:
        end_with_parent()
    return worker


def _server_options(command: Command) -> Command:
    """Options of a server. Each of them is a variable and a key of the file, too, by what `ConfiguredCommand` does."""
    for option in reversed((
        click.option(
            "--config", "config_file", metavar="FILE", type=click.Path(path_type=Path), cls=CommandLineOption,
            envvar="TRIOROOM_CONFIG", is_eager=True, expose_value=False, callback=load_config_file,
            help="TOML with options by their names, and [settings].",
        ),
        click.option(
            "--check-config", is_flag=True, cls=CommandLineOption, is_eager=True,
            help="Tell what the configuration is and all that is wrong with it; serve nobody.",
        ),
        click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 is all of IPv4."),
        click.option("--port", default=8000, type=click.IntRange(0, 65535), help="0 picks a free one."),
        click.option(
            "--tls-cert", type=_PEM, metavar="FILE",
            help="Serve https:// and wss:// with this certificate and its intermediates; SIGHUP reads it again.",
        ),
        click.option("--tls-key", type=_PEM, metavar="FILE", help="Its key, if that is in a file of its own."),
        click.option(
            "--set", "settings", multiple=True, metavar="NAME=VALUE", cls=CommandLineOption, callback=collect_settings,
            help="Change a setting, such as --set max_message_bytes=1048576.",
        ),
        click.option(
            "--backplane", default="memory", metavar="URL", cls=SecretUrlOption,
            help="What links servers: redis://HOST, nats://HOST, kafka://HOST; embedded: a Valkey for these workers.",
        ),
        click.option(
            "--api-key", cls=SecretOption, callback=_check_api_key, metavar="KEY",
            help="Serve HTTP API, metrics and dashboard to who sends it; rather by the variable, as all see options.",
        ),
        click.option("--workers", default=1, type=click.IntRange(1), help="Processes that share the port."),
        click.option("--port-per-worker", is_flag=True, help="They do not: worker N has --port + N - 1 for itself."),
        click.option(
            "--worker", is_flag=True, hidden=True, is_eager=True, callback=_begin_worker,
            help="Be one of them; see trioroom.cli.lifeline.",
        ),
        click.option("--fork-server", is_flag=True, hidden=True, help="Fork them; see trioroom.cli.forkserver."),
        click.option("--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"])),
        click.option(
            "--log-format", default="text", type=click.Choice(["text", "json"]), is_eager=True, callback=_begin_logs,
            help="json: one object a line on standard error, for what collects logs.",
        ),
        click.option("--opentelemetry", is_flag=True, help="Trace hooks and publications, as OTEL_* variables say."),
    )):  # fmt: skip
        command = option(command)
    return command


@click.command(cls=ConfiguredCommand, epilog=_EPILOG)
@click.argument("app", type=AppType(), metavar="MODULE:APP")
@_server_options
def serve(app: App, **options: Any) -> None:
    """Serve the trioroom.App that MODULE calls APP, as in: trioroom serve chat:app"""
    _run(app, **options)


@click.command(cls=ConfiguredCommand, epilog=_EPILOG)
@_server_options
def demo(**options: Any) -> None:
    """Serve the demo chat; open the address it prints in a browser."""
    from trioroom.demo.app import app  # a server of other rooms has no need of it

    _run(app, **options)


def _run(app: App, *, check_config: bool, **chosen: Any) -> None:
    options = ServeOptions(**chosen)
    if check_config:
        from trioroom.cli.check import check  # a server has no need of it

        check(app, options, [(("tls_cert", "tls_key"), _load_tls)])
    set_up(options.log_level, tells_process=options.worker)
    raise_limit_of_open_files()
    if options.worker or options.workers > 1:  # what of it the parent heeds, it says itself
        survive_hangups()
    if not options.worker:
        for warning in configuration_of(click.get_current_context()).warnings:
            log.warning("%s", warning)
    failures: list[BaseException] = []
    try:
        ssl_context = _load_tls(options)
        if options.workers > 1:
            trio.run(serve_with_workers, options, sys.argv[1:], reason_of_system())
        else:
            _serve_here(app, options, ssl_context)
    except* (click.ClickException, click.exceptions.Exit) as group:
        failures = leaves_of(group)
    ignore_signals()
    for failure in failures:
        assert isinstance(failure, click.ClickException | click.exceptions.Exit)
        raise_or_log(failure)


def _serve_here(app: App, options: ServeOptions, ssl_context: ssl.SSLContext | None) -> None:
    """In this process, or in each of its forks."""
    if options.fork_server:
        _load_for_forks(options.backplane)
    with server_gc_policy():
        if options.fork_server:
            port = fork_workers()
            if port is None:
                return
            options = attrs.evolve(options, port=port)
        trio.run(serve_until_signal, app, options, ssl_context)


def _load_for_forks(url: str) -> None:
    """What each worker would import when it opens its backplane and its server: 13 MB that they can share."""
    importlib.import_module("encodings.idna")
    importlib.import_module("trioroom._net.metrics")
    with suppress(ValueError, BackplaneError):  # each of them says so itself
        import_backplane(url)


def _load_tls(options: ServeOptions) -> ssl.SSLContext | None:
    files = tls_files(options.tls_cert, options.tls_key)
    return None if files is None else files.load()
