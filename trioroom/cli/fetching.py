"""One GET of one small document, for commands that ask a server over HTTP; it closes the connection after each."""

from __future__ import annotations

import ssl

import attrs
import h11
import trio

from trioroom.client.dialing import Target, open_stream

_READ_BYTES = 64 * 1024
_MAX_BODY_BYTES = 16 << 20  # hundreds of nodes that all say as much as they may


@attrs.frozen
class Answer:
    """What a server said."""

    status: int
    body: bytes


async def fetch(target: Target, api_key: str | None, ssl_context: ssl.SSLContext | None) -> Answer:
    """The document at ``target``.

    Raises:
        OSError: the server cannot be reached, or does not speak HTTP.
    """
    headers = [("Host", target.authority), ("Accept", "application/json"), ("Connection", "close")]
    if api_key is not None:
        headers.append(("Authorization", f"Bearer {api_key}"))
    connection = h11.Connection(h11.CLIENT)
    request = connection.send(h11.Request(method="GET", target=target.resource, headers=headers))
    connection.send(h11.EndOfMessage())
    assert request is not None
    stream = await open_stream(target, None, ssl_context)
    try:
        await stream.send_all(request)
        return await _receive(stream, connection)
    except (h11.RemoteProtocolError, trio.BrokenResourceError) as exc:
        reason = f"{target.authority} does not speak HTTP, or broke off: {exc}"
        raise ConnectionResetError(reason) from None  # which is told by its root, and that says less
    finally:
        await trio.aclose_forcefully(stream)


async def _receive(stream: trio.abc.Stream, connection: h11.Connection) -> Answer:
    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _MAX_BODY_BYTES:
                raise ConnectionResetError(f"an answer of more than {_MAX_BODY_BYTES} bytes")
        elif not isinstance(event, h11.InformationalResponse):
            return Answer(status, bytes(body))
