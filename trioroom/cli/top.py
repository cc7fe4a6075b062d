"""``trioroom top``: servers in the terminal, live, by the figures of their dashboard."""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path

import attrs
import click
import msgspec
import trio

from trioroom._core.causes import leaves_of
from trioroom._core.snapshot import FORMAT, Report
from trioroom.cli.connecting import reason_of
from trioroom.cli.screen import Screen, open_screen
from trioroom.cli.secret_options import SecretOption
from trioroom.cli.top_layout import lay_out
from trioroom.cli.watch import View, Watch
from trioroom.client.dialing import Target, parse_http_url
from trioroom.client.fetching import fetch

_FIGURES = "_/nodes.json"
_INTERVAL = 1.0  # seconds from one look to the next
_TIMEOUT = 8.0  # seconds for an answer: a server asks the others for one
_MAX_PAUSE = 10.0  # seconds between two looks at a server that does not answer
_MAX_BYTES = 16 << 20  # hundreds of nodes that all say as much as they may
_WIDTH = 120  # columns, where there is no terminal


@attrs.frozen
class _Source:
    """Where the figures come from."""

    url: str
    target: Target
    api_key: str | None = attrs.field(repr=False)
    ssl_context: ssl.SSLContext | None

    async def fetch(self) -> bytes:
        """What the server says now.

        Raises:
            OSError: it cannot be reached.
            click.ClickException: it can, and will not say so.
        """
        with trio.move_on_after(_TIMEOUT) as scope:
            answer = await fetch(self.target, max_bytes=_MAX_BYTES, api_key=self.api_key, ssl_context=self.ssl_context)
        if scope.cancelled_caught:
            raise TimeoutError(f"no answer within {_TIMEOUT:g} s")
        if answer.status == 200:
            return answer.body
        raise click.ClickException(_refusal(answer.status, self))


def _refusal(status: int, source: _Source) -> str:
    if status == 401 and source.api_key is None:
        return f"{source.url} wants its API key; set TRIOROOM_API_KEY to it, or give --api-key"
    if status == 401:
        return f"{source.url} has another API key; set TRIOROOM_API_KEY to it, or give --api-key"
    if status == 404:
        return f"{source.url} shows nothing: its server has no API key set; see trioroom serve --api-key"
    return f"{source.url} answers with HTTP {status}; is it trioroom?"


@click.command()
@click.argument("url", default="http://127.0.0.1:8000")
@click.option(
    "--api-key",
    cls=SecretOption,
    envvar="TRIOROOM_API_KEY",
    show_envvar=True,
    metavar="KEY",
    help="The servers' own; better by the variable, as all see the options.",
)
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="For https://, whom to trust, as PEM; by default whom the system trusts.",
)
@click.option("--once", is_flag=True, help="Print it once, as text; so also where standard output is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print once what the server says, as JSON.")
def top(url: str, api_key: str | None, ca_file: Path | None, once: bool, as_json: bool) -> None:
    """Show how the server at URL and all that are linked to it do, each second. q or Ctrl-C ends it."""
    source = _source(url, api_key, ca_file)
    failures: list[BaseException] = []
    try:
        if as_json:
            click.echo(trio.run(_first, source))
        elif once or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
            trio.run(_print_once, source)
        else:
            trio.run(_show_live, source)
    except* click.ClickException as group:
        failures = leaves_of(group)
    except* KeyboardInterrupt:  # before there was a screen to leave
        raise SystemExit(130) from None
    for failure in failures:
        raise failure


def _source(url: str, api_key: str | None, ca_file: Path | None) -> _Source:
    try:
        target = parse_http_url(url)
        context = None if ca_file is None else ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as exc:
        raise click.BadParameter(f"{ca_file} holds no certificate as PEM", param_hint="--ca-file") from exc
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="URL") from exc
    base = target.resource.removesuffix(_FIGURES).removesuffix("_/").rstrip("/")  # as copied from a browser, too
    return _Source(url, attrs.evolve(target, resource=f"{base}/{_FIGURES}"), api_key, context)


async def _first(source: _Source) -> bytes:
    """As `_Source.fetch`, for when there is nothing to show yet."""
    try:
        return await source.fetch()
    except OSError as exc:
        raise click.ClickException(
            f"cannot reach {source.url}: {reason_of(exc)}; is the server running there?"
        ) from exc


def _decode(body: bytes, source: _Source) -> Report:
    try:
        report = msgspec.json.decode(body, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise click.ClickException(f"{source.url} answers with no figures ({exc}); is it trioroom?") from exc
    if report.format != FORMAT:
        raise click.ClickException(f"{source.url} has figures of another version; use the trioroom that it runs")
    return report


async def _print_once(source: _Source) -> None:
    """Two looks, as a rate takes a second."""
    watch = Watch()
    watch.update(_decode(await _first(source), source))
    await trio.sleep(_INTERVAL)
    view = watch.update(_decode(await _first(source), source))
    width = os.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH
    click.echo("\n".join(lay_out(view, source.url, "", width, colors=False)))


async def _show_live(source: _Source) -> None:
    watch = Watch()
    view = watch.update(_decode(await _first(source), source))  # what fails at once is better told without a screen
    with open_screen() as screen:
        show = _Show(source, watch, view, screen)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(show.follow)
            await screen.run_until_quit(show.draw)
            nursery.cancel_scope.cancel()


class _Show:
    """What is on the screen now."""

    def __init__(self, source: _Source, watch: Watch, view: View, screen: Screen) -> None:
        self._source = source
        self._watch = watch
        self._view = view
        self._screen = screen
        self._notice = ""

    def draw(self) -> None:
        """As large as the screen is."""
        width, height = self._screen.size
        colors = "NO_COLOR" not in os.environ
        self._screen.draw(lay_out(self._view, self._source.url, self._notice, width, height, colors=colors))

    async def follow(self) -> None:
        """Look and draw, until cancelled; less often while nothing answers."""
        pause = _INTERVAL
        while True:
            self.draw()
            await trio.sleep(pause)
            try:
                report = _decode(await self._source.fetch(), self._source)
            except OSError as exc:
                self._notice = f"no answer ({reason_of(exc)}); trying again"
                pause = min(2 * pause, _MAX_PAUSE)
            else:
                self._notice, pause = "", _INTERVAL
                self._view = self._watch.update(report)
