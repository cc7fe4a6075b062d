"""``trioroom join``: be in a room from the terminal, or from a pipe."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Literal

import attrs
import click
import msgspec
import trio

from trioroom._core.causes import leaves_of
from trioroom.cli.connecting import errors_of_client, reason_of
from trioroom.client import ClientRoom, Gap, Message, PresenceDiff, Rejoined, connect
from trioroom.client.dialing import parse_url
from trioroom.errors import LocalProtocolError, RequestRefused, TrioroomError, Unconfirmed

if TYPE_CHECKING:
    from trioroom._wire.message import Data
    from trioroom.client import Client, Event

_STDIN = 0
_READ_BYTES = 64 * 1024
_MAX_LINE_BYTES = 1 << 20


@attrs.frozen
class _Options:
    url: str
    room: str
    token: str | None
    codec: Literal["json", "msgpack"]
    as_json: bool
    presence: bool
    history: int


@click.command()
@click.argument("url")
@click.argument("room")
@click.option("--token", help="For rooms that ask who you are.")
@click.option("--codec", type=click.Choice(["json", "msgpack"]), default="json", help="How to talk to the server.")
@click.option("--json", "as_json", is_flag=True, help="Lines are JSON rather than text, both ways.")
@click.option("--presence", is_flag=True, help="Tell who comes and who goes.")
@click.option("--history", type=click.IntRange(0, 1000), default=0, metavar="N", help="Begin with the last N messages.")
def join(**options: object) -> None:
    """Print what is said in ROOM of the server at URL, and say each line of standard input.

    A lost connection is made again. Ends with the input or with Ctrl-C.
    """
    asked = _Options(**options)  # type: ignore[arg-type]  # click has checked them
    try:
        parse_url(asked.url)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="URL") from exc
    unsaid: list[str] = []
    with errors_of_client(asked.url):
        trio.run(_run, asked, unsaid)
    if unsaid:
        raise SystemExit(1)


async def _run(options: _Options, unsaid: list[str]) -> None:
    """Until the input ends or somebody ends us; ``unsaid`` gets why lines that were typed could not be said."""
    failures: list[BaseException] = []
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_heed_signals, nursery.cancel_scope)
            async with connect(options.url, token=options.token, codec=options.codec) as client:
                nursery.start_soon(_tell_states, client)
                async with client.join(options.room, presence=options.presence) as room:
                    await _be_in(room, options, unsaid)
            nursery.cancel_scope.cancel()
    except* (TrioroomError, OSError, click.ClickException) as group:
        failures = leaves_of(group)
    for failure in failures:
        raise failure


async def _heed_signals(scope: trio.CancelScope) -> None:
    """Ctrl-C is the usual way out."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


async def _be_in(room: ClientRoom, options: _Options, unsaid: list[str]) -> None:
    click.echo(f"* joined {room.name}", err=True)
    if options.history:
        for kept in (await room.history(options.history)).messages:
            click.echo(_line(kept.sender, kept.data, options))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_show, room, options)
        await _say_lines(room, options, unsaid)
        nursery.cancel_scope.cancel()


# -- what comes -------------------------------------------------------------------------------------


async def _tell_states(client: Client) -> None:
    async for state in client.states():
        if state.name == "open":
            click.echo("* connected", err=True)
        elif state.name == "waiting":
            why = reason_of(state.error) if isinstance(state.error, OSError) else state.error
            click.echo(f"* not connected: {why}; again in {state.after:.1f} s", err=True)


async def _show(room: ClientRoom, options: _Options) -> None:
    knows_who = False
    async for event in room.events():
        lines = _lines(event, options)
        if isinstance(event, PresenceDiff) and not knows_who:  # the first one names everybody: in one line
            names = ", ".join(each.user for each in event.joined)
            knows_who, lines = True, [f"* {event.count} here: {names}".removesuffix(": ")]
        for line in lines:
            click.echo(line)


def _lines(event: Event, options: _Options) -> list[str]:
    match event:
        case Message():
            return [_line(event.sender, event.data, options)]
        case Gap():
            lost = "messages are" if event.lost is None else f"{event.lost} message(s) are"
            return [f"* {lost} missing here ({event.reason})"]
        case PresenceDiff():
            came, went = (f"* {each.user} is here" for each in event.joined), (f"* {user} left" for user in event.left)
            return [*came, *went] or [f"* {event.count} here"]
        case Rejoined():
            return []  # the state has told
    return []


def _line(sender: str | None, data: Data, options: _Options) -> str:
    if isinstance(data, bytes):
        text = f"({len(data)} bytes)"
    elif isinstance(data, str) and not options.as_json:
        text = data
    else:
        text = msgspec.json.encode(data).decode()
    return f"{sender or '*'}: {text}"


# -- what is typed ----------------------------------------------------------------------------------


async def _say_lines(room: ClientRoom, options: _Options, unsaid: list[str]) -> None:
    def complain(message: str) -> None:
        click.echo(f"* not said: {message}", err=True)
        unsaid.append(message)

    async for line in _Lines():
        try:
            await room.publish(msgspec.json.decode(line) if options.as_json else line.decode("utf-8", "replace"))
        except msgspec.DecodeError as exc:
            complain(f"not JSON: {exc}")
        except (RequestRefused, Unconfirmed, LocalProtocolError) as exc:
            complain(str(exc))


class _Lines:
    """Of standard input.

    Read from the descriptor, in a thread, as a file has no other way. The thread that waits for a line is abandoned in
    the end, and would hold the lock of ``sys.stdin``, without which the interpreter does not come down.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while b"\n" not in self._rest and not self._ended:
            read = partial(os.read, _STDIN, _READ_BYTES)
            data = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
            self._ended = not data
            self._rest += data
            if len(self._rest) > _MAX_LINE_BYTES and b"\n" not in self._rest:
                raise click.ClickException(f"a line is longer than {_MAX_LINE_BYTES} bytes")
        if not self._rest:
            raise StopAsyncIteration
        line, _, self._rest = self._rest.partition(b"\n")
        return line.removesuffix(b"\r")
