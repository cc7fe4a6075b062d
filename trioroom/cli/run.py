"""One server in this process, from its backplane to the last signal; and what the parent of workers shares with it."""

from __future__ import annotations

import errno
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click
import trio

from trioroom.app import App
from trioroom.backplane.base import Backplane
from trioroom.backplane.embedded import open_embedded
from trioroom.backplane.open import open_backplane
from trioroom.cli.dumps import open_dumps
from trioroom.cli.lifeline import Lifeline, take_lifeline
from trioroom.cli.logs import say
from trioroom.cli.notify import READY, STOPPING, notify
from trioroom.cli.siblings import open_siblings
from trioroom.cli.signals import Stop, open_stop
from trioroom.cli.tls import reload_at_hangups, tls_files
from trioroom.errors import BackplaneError
from trioroom.server import Server, open_server
from trioroom.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider


@attrs.frozen(kw_only=True)
class ServeOptions:
    """What the command line asks for; each is the option of that name."""

    host: str
    port: int
    tls_cert: Path | None
    tls_key: Path | None
    settings: Settings
    log_level: str
    log_format: str
    opentelemetry: bool
    backplane: str = attrs.field(repr=False)
    """A URL, which may hold a password."""
    api_key: str | None = attrs.field(repr=False)
    workers: int
    port_per_worker: bool
    worker: bool
    """This process is one of several, started by another ``trioroom``."""
    fork_server: bool
    """Its forks are, and not it itself."""

    @property
    def scheme(self) -> str:
        """What the server's addresses begin with."""
        return "http" if self.tls_cert is None else "https"


async def serve_until_signal(app: App, options: ServeOptions, ssl_context: ssl.SSLContext | None) -> None:
    """Serve ``app``, linked to others by the backplane, until a signal, or as a worker until its parent is gone.

    Raises:
        click.ClickException: it cannot, as said in one line; maybe in exception groups.
    """
    async with open_stop(patient=options.worker) as stop, open_dumps():
        if not options.worker:
            await _serve(app, options, ssl_context, stop, None)
            return
        async with take_lifeline() as lifeline, trio.open_nursery() as nursery:
            nursery.start_soon(lifeline.run_until_lost, stop.insist)
            await _serve(app, options, ssl_context, stop, lifeline)
            nursery.cancel_scope.cancel()


async def _serve(
    app: App, options: ServeOptions, ssl_context: ssl.SSLContext | None, stop: Stop, lifeline: Lifeline | None
) -> None:
    async with open_link(options.backplane) as backplane:
        with stop.at_once:
            async with _listening(app, options, ssl_context, backplane) as server:
                stop.serving = True
                if lifeline is not None:
                    await lifeline.say_serving(_longest_end(options.settings))
                    await stop.begun.wait()
                else:
                    async with trio.open_nursery() as nursery:
                        files = tls_files(options.tls_cert, options.tls_key)
                        nursery.start_soon(reload_at_hangups, server, files, stop.wait_hangup)
                        announce(server.addresses, options.scheme)
                        notify(READY)
                        await stop.begun.wait()
                        nursery.cancel_scope.cancel()
                    notify(STOPPING)
                if server.connection_count and lifeline is None:
                    count = server.connection_count
                    say(f"draining {count} connections (Ctrl-C again stops at once)", connections=count)


def _longest_end(settings: Settings) -> float:
    """Seconds from the signal to the end: the last peers go at the deadline, and then their rooms, each with a hook."""
    return settings.drain_delay + settings.drain_timeout + 2 * settings.leave_timeout


@asynccontextmanager
async def _listening(
    app: App, options: ServeOptions, ssl_context: ssl.SSLContext | None, backplane: Backplane
) -> AsyncIterator[Server]:
    async with AsyncExitStack() as stack:
        siblings = await stack.enter_async_context(open_siblings()) if options.worker else None
        with errors_of_listening(options.host, options.port):
            opened = open_server(
                app, options.host, options.port, settings=options.settings, ssl_context=ssl_context,
                backplane=backplane, reuse_port=options.worker, api_key=options.api_key,
                tracer_provider=_tracer_provider() if options.opentelemetry else None,
                siblings=siblings,
            )  # fmt: skip
            server = await stack.enter_async_context(opened)
        yield server


def _tracer_provider() -> TracerProvider:
    from trioroom.cli.telemetry import configured_provider  # few servers trace, and e-mail comes with what finds it

    return configured_provider()


@asynccontextmanager
async def open_link(url: str) -> AsyncIterator[Backplane]:
    """The backplane that ``--backplane`` names, ``embedded`` too, open while the context is.

    Raises:
        click.ClickException: it cannot be opened, as said in one line.
    """
    async with AsyncExitStack() as stack:
        with errors_of_backplane():
            if url == "embedded":
                url = await stack.enter_async_context(open_embedded())
            backplane = await stack.enter_async_context(open_backplane(url))
        yield backplane


class WrongBackplane(click.ClickException):
    """No such URL: a usage error, less the lines about usage, which the command's many options would make long."""

    exit_code = click.UsageError.exit_code


@contextmanager
def errors_of_backplane() -> Iterator[None]:
    """What opening a backplane raises, as errors of the command."""
    try:
        yield
    except ValueError as exc:
        raise WrongBackplane(f"--backplane: {exc}") from exc
    except BackplaneError as exc:
        raise click.ClickException(str(exc)) from exc


@contextmanager
def errors_of_listening(host: str, port: int) -> Iterator[None]:
    """What opening the listeners raises, as an error of the command."""
    try:
        yield
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            message = f"port {port} of {host} is in use; choose another with --port"
        else:
            message = f"cannot listen on port {port} of {host}: {exc}; see --host and --port"
        raise click.ClickException(message) from exc


def announce(addresses: Sequence[tuple[str, int]], scheme: str, note: str = "") -> None:
    """Say where the server is, now that it serves."""
    for host, port in addresses:
        shown = f"[{host}]" if ":" in host else host
        url = f"{scheme}://{shown}:{port}/"
        say(f"trioroom serves {url} ({note}Ctrl-C stops)", url=url)
