"""One GET of one small document, for who asks a server over HTTP now and then; it closes the connection after each.

Redirects are not followed: a document comes from where it was asked for, or not at all.
"""

from __future__ import annotations

import ssl

import attrs
import h11
import trio

from trioroom.client.dialing import Proxy, Target, open_stream

_READ_BYTES = 64 * 1024


@attrs.frozen
class Answer:
    """What a server said."""

    status: int
    body: bytes


async def fetch(
    target: Target,
    *,
    max_bytes: int,
    api_key: str | None = None,
    proxy: Proxy | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> Answer:
    """The document at ``target``, whatever its status.

    Raises:
        OSError: the server cannot be reached, does not speak HTTP, or says more than ``max_bytes``.
        HandshakeError: the proxy refuses.

    It takes as long as the server does: use `trio.move_on_after`.
    """
    headers = [
        ("Host", target.authority), ("Accept", "application/json"), ("User-Agent", "trioroom"), ("Connection", "close")
    ]  # fmt: skip
    if api_key is not None:
        headers.append(("Authorization", f"Bearer {api_key}"))
    connection = h11.Connection(h11.CLIENT)
    request = connection.send(h11.Request(method="GET", target=target.resource, headers=headers))
    connection.send(h11.EndOfMessage())
    assert request is not None
    stream = await open_stream(target, proxy, ssl_context)
    try:
        await stream.send_all(request)
        return await _receive(stream, connection, max_bytes)
    except (h11.RemoteProtocolError, trio.BrokenResourceError) as exc:
        reason = f"{target.authority} does not speak HTTP, or broke off: {exc}"
        raise ConnectionResetError(reason) from None  # which is told by its root, and that says less
    finally:
        await trio.aclose_forcefully(stream)


async def _receive(stream: trio.abc.Stream, connection: h11.Connection, max_bytes: int) -> Answer:
    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > max_bytes:
                raise ConnectionResetError(f"the document exceeds {max_bytes} bytes")
        elif not isinstance(event, h11.InformationalResponse):
            return Answer(status, bytes(body))
