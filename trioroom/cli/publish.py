"""``trioroom publish``: put one message into a room of a running server."""

from __future__ import annotations

import sys

import click
import msgspec
import trio
from trio_websocket import ConnectionClosed, HandshakeError, open_websocket_url

_SUBPROTOCOL = "trioroom.v1.json"
_TIMEOUT = 10.0  # seconds for all of it


@click.command()
@click.argument("room")
@click.argument("data")
@click.option("--url", default="ws://127.0.0.1:8000/", help="The server.")
@click.option("--json", "as_json", is_flag=True, help="DATA is JSON rather than text.")
@click.option("--token", help="For rooms that ask who you are.")
def publish(room: str, data: str, url: str, as_json: bool, token: str | None) -> None:
    """Join ROOM, send DATA as one message, and leave. DATA "-" is read from standard input."""
    value: object = sys.stdin.read() if data == "-" else data
    if as_json:
        try:
            value = msgspec.json.decode(str(value))
        except msgspec.DecodeError as exc:
            raise click.BadParameter(f"DATA is not JSON: {exc}") from exc
    try:
        trio.run(_publish, url, room, value, token)
    except (OSError, HandshakeError) as exc:
        raise click.ClickException(f"cannot reach {url}: {_root_of(exc)}; is the server running there?") from exc
    except ConnectionClosed as exc:
        raise click.ClickException(f"the server closed the connection: {exc.reason}") from exc
    except trio.TooSlowError as exc:
        raise click.ClickException(f"no answer from {url} within {_TIMEOUT:g} s") from exc
    click.echo(f"sent to {room}")


def _root_of(exc: BaseException) -> BaseException:
    """What began it: Trio and trio-websocket wrap the refusal of each address they tried."""
    while (cause := exc.exceptions[0] if isinstance(exc, BaseExceptionGroup) else exc.__cause__) is not None:
        exc = cause
    return exc


async def _publish(url: str, room: str, data: object, token: str | None) -> None:
    requests: list[dict[str, object]] = [
        {"type": "join", "room": room},
        {"type": "publish", "room": room, "data": data},
    ]
    if token is not None:
        requests.insert(0, {"type": "auth", "token": token})
    with trio.fail_after(_TIMEOUT):
        async with open_websocket_url(url, subprotocols=[_SUBPROTOCOL]) as ws:
            for id, request in enumerate(requests, start=1):
                await ws.send_message(msgspec.json.encode({**request, "id": id}).decode())
                while (reply := msgspec.json.decode(await ws.get_message())).get("id") != id:
                    pass  # hello, or a message of the room
                if reply["type"] == "error":
                    raise click.ClickException(f"{request['type']} was refused: {reply['message']}")
