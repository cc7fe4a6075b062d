"""`connect`, which opens a `Client`."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

import trio

from trioroom._wire.client_codec import CLIENT_CODECS
from trioroom.client.client import Client, ClientOptions, Dial
from trioroom.client.dialing import open_stream, parse_proxy, parse_url
from trioroom.client.inbox import FullInbox
from trioroom.client.reconnect import Backoff
from trioroom.client.tokens import Token


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: Token = None,
    codec: Literal["json", "msgpack"] = "json",
    ssl_context: ssl.SSLContext | None = None,
    proxy: str | None = None,
    dial: Dial | None = None,
    headers: Mapping[str, str] | None = None,
    user_agent: str = "trioroom",
    max_inbox: int = 1_000,
    full_inbox: FullInbox = FullInbox.DROP_OLDEST,
    max_pending: int = 100,
    max_message_bytes: int = 8 << 20,
    connect_timeout: float = 10.0,
    backoff: Backoff | None = None,
) -> AsyncIterator[Client]:
    """A client of a trioroom server, for as long as the context is open.

    It connects in the background, and again when a connection is lost: with back-off, or as the server says. So
    entering does not fail; `trioroom.client.Client.states` tells how it goes, `trioroom.client.Client.wait_open` and
    `trioroom.client.Client.join` wait for it. A refusal that no other try would mend closes the client, and what is
    asked of it raises why.

    Leaving closes the WebSocket with 1000.

    Args:
        url: ``ws://`` or ``wss://``, of any path.
        token: for servers or rooms that ask who one is; or a function, async or not, that is called before each
            connection, and before the token expires where the server says when. One that the server does not take
            closes the client with `RequestRefused`.
        codec: ``msgpack`` carries bytes as they are.
        ssl_context: for ``wss://``; by default the certificates that the system trusts.
        proxy: ``http://user:password@host:port``, which is asked to CONNECT; TLS goes through it.
        dial: opens the stream to the server by other ways than TCP and TLS, such as a Unix socket or a proxy of another
            kind; ``OSError`` means that it cannot be reached now. The URL then only says what to ask for.
        headers: of the opening handshake.
        max_inbox: events that may wait in a room to be read.
        full_inbox: what happens when more come.
        max_pending: publications that may wait for their answers; further ones await their turn. After an outage all
            of them are sent again at once: keep it below the server's ``message_burst``.
        max_message_bytes: a larger message closes the client with 1009.
        connect_timeout: seconds for one try, from the token to the server's hello.
        backoff: how long to wait between tries.
    Raises:
        ValueError: the URL, or that of the proxy, is none; a bound is not positive; there is no such codec; ``dial``
            and what it does without.
    """
    target = parse_url(url)
    if dial is not None and (proxy is not None or ssl_context is not None):
        raise ValueError("dial opens the whole stream, TLS and proxies included; leave out proxy and ssl_context")
    dial = dial or partial(open_stream, target, None if proxy is None else parse_proxy(proxy), ssl_context)
    if codec not in CLIENT_CODECS:
        raise ValueError(f"codec={codec!r} is none of {', '.join(CLIENT_CODECS)}")
    if min(max_inbox, max_pending, max_message_bytes, connect_timeout) <= 0:
        raise ValueError("max_inbox, max_pending, max_message_bytes and connect_timeout must be positive")
    options = ClientOptions(
        target=target,
        dial=dial,
        codec=CLIENT_CODECS[codec],
        headers={"User-Agent": user_agent, **(headers or {})},
        max_inbox=max_inbox,
        full_inbox=full_inbox,
        max_pending=max_pending,
        max_message_bytes=max_message_bytes,
        connect_timeout=connect_timeout,
        backoff=backoff or Backoff(),
    )
    async with open_client(options, token) as client:
        yield client


@asynccontextmanager
async def open_client(options: ClientOptions, token: Token) -> AsyncIterator[Client]:
    """Run a client while the context is open; what the body raises comes out as it is."""
    failure: BaseException | None = None
    client = Client(options, token)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        try:
            yield client
        except trio.Cancelled:
            raise
        except BaseException as exc:  # carried past the nursery, which would wrap it in a group
            failure = exc
        finally:
            await client.aclose()
    if failure is not None:
        raise failure
