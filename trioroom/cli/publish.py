"""``trioroom publish``: put one message into a room, through a server or past it through the backplane."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import click
import msgspec
import trio
from click.core import ParameterSource

from trioroom._core.causes import leaves_of
from trioroom._wire.publication import encode_publication
from trioroom.backplane.open import open_backplane
from trioroom.cli.connecting import errors_of_client, wait_connected
from trioroom.cli.run import errors_of_backplane
from trioroom.client import connect
from trioroom.errors import BackplaneError

if TYPE_CHECKING:
    from trioroom._wire.message import Data
    from trioroom.backplane.base import Backplane

_TIMEOUT = 10.0  # seconds for all of it


@click.command()
@click.argument("room")
@click.argument("data")
@click.option("--url", default="ws://127.0.0.1:8000/", help="The server.")
@click.option("--json", "as_json", is_flag=True, help="DATA is JSON rather than text.")
@click.option("--token", help="For rooms that ask who you are.")
@click.option(
    "--backplane", metavar="URL", help="Past all servers: what links them, as in trioroom serve --backplane URL."
)
@click.pass_context
def publish(
    ctx: click.Context, room: str, data: str, url: str, as_json: bool, token: str | None, backplane: str | None
) -> None:
    """Join ROOM, send DATA as one message, and leave. DATA "-" is read from standard input.

    With --backplane nothing is joined and no room is asked: DATA goes to the members of ROOM on every server.
    """
    if backplane is not None:
        _check_backplane(ctx, backplane, token)
    value: Data = sys.stdin.read() if data == "-" else data
    if as_json:
        try:
            value = msgspec.json.decode(str(value))
        except msgspec.DecodeError as exc:
            raise click.BadParameter(f"DATA is not JSON: {exc}") from exc
    if backplane is not None:
        _publish_to_backplane(backplane, room, value)
    else:
        _publish_to_server(url, room, value, token)
    click.echo(f"sent to {room}")


def _check_backplane(ctx: click.Context, backplane: str, token: str | None) -> None:
    if token is not None or ctx.get_parameter_source("url") is not ParameterSource.DEFAULT:
        raise click.UsageError("--backplane goes past the servers; leave out --url and --token, or --backplane")
    if backplane in ("memory", "embedded"):
        raise click.UsageError(
            f"--backplane {backplane} is inside a server; give the URL that links servers, or --url to reach that one"
        )


def _publish_to_backplane(backplane: str, room: str, data: Data) -> None:
    failures: list[BaseException] = []
    try:
        trio.run(_hand_over, backplane, room, data)
    except* click.ClickException as group:
        failures += leaves_of(group)
    except* trio.TooSlowError:
        failures.append(click.ClickException(f"no answer from the backplane within {_TIMEOUT:g} s"))
    for failure in failures:
        raise failure


async def _hand_over(backplane: str, room: str, data: Data) -> None:
    try:
        payload = encode_publication(data, None, None)
    except TypeError as exc:  # such as an integer that no JSON reader of the members would take
        raise click.BadParameter(f"DATA cannot be published: {exc}") from exc
    with trio.fail_after(_TIMEOUT):
        async with AsyncExitStack() as stack:
            with errors_of_backplane():
                link = await stack.enter_async_context(open_backplane(backplane))
            await _publish_once(link, room, payload)


async def _publish_once(link: Backplane, room: str, payload: bytes) -> None:
    try:
        # A room with a history has to keep it; whether it has one its last publisher or reader has said.
        if link.history is None or await link.history.publish(room, payload, None) is None:
            await link.publish(room, payload)
    except ValueError as exc:  # larger than the backplane takes
        raise click.BadParameter(f"DATA cannot be published: {exc}") from exc
    except BackplaneError as exc:
        raise click.ClickException(str(exc)) from exc


def _publish_to_server(url: str, room: str, data: Data, token: str | None) -> None:
    try:
        with errors_of_client(url):
            trio.run(_publish, url, room, data, token)
    except trio.TooSlowError as exc:
        raise click.ClickException(f"no answer from {url} within {_TIMEOUT:g} s") from exc
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


async def _publish(url: str, room: str, data: Data, token: str | None) -> None:
    with trio.fail_after(_TIMEOUT):
        async with connect(url, token=token) as client:
            await wait_connected(client)
            async with client.join(room) as joined:
                await joined.publish(data)
