"""``trioroom serve`` and ``trioroom demo``."""

from __future__ import annotations

import importlib
import logging
import signal
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import attrs
import click
import trio

from trioroom._core.api_key import ApiKey
from trioroom._core.causes import leaves_of
from trioroom._net.gc_policy import server_gc_policy
from trioroom.app import App
from trioroom.cli.assignments import parse_settings
from trioroom.cli.forksafety import reason_of_system
from trioroom.cli.forkserver import fork_workers
from trioroom.cli.open_files import raise_limit_of_open_files
from trioroom.cli.run import ServeOptions, serve_until_signal
from trioroom.cli.workers import serve_with_workers
from trioroom.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])

_LOADED_FOR_FORKS = ("trioroom.backplane.redis", "encodings.idna")
"""What each worker would import when it opens its backplane and its listeners: 13 MB that they can share."""


class AppType(click.ParamType[App]):
    """``MODULE:APP``, imported; the current directory comes first on the path."""

    name = "module:app"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> App:
        """The `App` that ``value`` names; a usage error in one line when there is none."""
        module_name, _, attribute = value.partition(":")
        attribute = attribute or "app"
        if sys.path[:1] != [""]:
            sys.path.insert(0, "")
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as exc:
            if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
                raise  # something that the module itself imports: its traceback says where
            self.fail(f"no module {module_name!r} here or on the Python path; write MODULE:APP, as in chat:app")
        app = getattr(module, attribute, None)
        if not isinstance(app, App):
            self.fail(f"module {module_name!r} has no trioroom.App called {attribute!r}; write MODULE:APP")
        return app


def _to_settings(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Settings:
    try:
        return parse_settings(values)
    except (TypeError, ValueError) as exc:
        raise click.BadParameter(str(exc)) from exc


def _check_api_key(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    try:
        if value is not None:
            ApiKey(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc
    return value


def _server_options(command: Command) -> Command:
    for option in reversed((
        click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 is all of IPv4."),
        click.option("--port", default=8000, type=click.IntRange(0, 65535), help="0 picks a free one."),
        click.option("--certfile", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="TLS."),
        click.option("--keyfile", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="TLS."),
        click.option(
            "--set", "settings", multiple=True, metavar="NAME=VALUE", callback=_to_settings,
            help="Change a setting, such as --set max_message_bytes=1048576.",
        ),
        click.option(
            "--backplane", default="memory", metavar="URL", envvar="TRIOROOM_BACKPLANE", show_envvar=True,
            help="What links servers: redis://HOST and its kin, or embedded, a Valkey for this one and its workers.",
        ),
        click.option(
            "--api-key", envvar="TRIOROOM_API_KEY", show_envvar=True, callback=_check_api_key, metavar="KEY",
            help="Serve the HTTP API and /metrics to who sends it; better by the variable, as all see the options.",
        ),
        click.option("--workers", default=1, type=click.IntRange(1), help="Processes that share the port."),
        click.option("--port-per-worker", is_flag=True, help="They do not: worker N has --port + N - 1 for itself."),
        click.option("--worker", is_flag=True, hidden=True, help="Be one of them; see trioroom.cli.lifeline."),
        click.option("--fork-server", is_flag=True, hidden=True, help="Fork them; see trioroom.cli.forkserver."),
        click.option("--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"])),
    )):  # fmt: skip
        command = option(command)
    return command


@click.command()
@click.argument("app", type=AppType(), metavar="MODULE:APP")
@_server_options
def serve(app: App, **options: Any) -> None:
    """Serve the trioroom.App that MODULE calls APP, as in: trioroom serve chat:app"""
    _run(app, **options)


@click.command()
@_server_options
def demo(**options: Any) -> None:
    """Serve the demo chat; open the address it prints in a browser."""
    from trioroom.demo.app import app  # a server of other rooms has no need of it

    _run(app, **options)


def _run(app: App, **chosen: Any) -> None:
    options = ServeOptions(**chosen)
    pid = " [%(process)d]" if options.worker else ""
    logging.basicConfig(level=options.log_level.upper(), format=f"%(asctime)s{pid} %(levelname)s %(name)s: %(message)s")
    raise_limit_of_open_files()
    ssl_context = _tls(options.certfile, options.keyfile)
    failures: list[BaseException] = []
    try:
        if options.workers > 1:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until they are there to be replaced, and when they are not
            trio.run(serve_with_workers, options, sys.argv[1:], reason_of_system())
        else:
            _serve_here(app, options, ssl_context)
    except* (click.ClickException, click.exceptions.Exit) as group:
        failures = leaves_of(group)
    for failure in failures:
        raise failure


def _serve_here(app: App, options: ServeOptions, ssl_context: ssl.SSLContext | None) -> None:
    """In this process, or in each of its forks."""
    if options.worker:  # SIGHUP is for the parent, who replaces us; a service manager may signal each of its processes
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if options.fork_server:
        for name in _LOADED_FOR_FORKS:
            importlib.import_module(name)
    with server_gc_policy():
        if options.fork_server:
            port = fork_workers()
            if port is None:
                return
            options = attrs.evolve(options, port=port)
        trio.run(serve_until_signal, app, options, ssl_context)
    if options.worker:  # which its parent may tell to end when a service manager has made it do so already
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _tls(certfile: Path | None, keyfile: Path | None) -> ssl.SSLContext | None:
    if certfile is None:
        if keyfile is not None:
            raise click.UsageError("--keyfile needs --certfile")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certfile, keyfile)
    except ssl.SSLError as exc:
        raise click.ClickException(
            f"cannot use {certfile} ({exc.reason or exc}); give certificate and key as PEM"
        ) from exc
    return context
