"""One connection to one server: bytes on a Trio stream, from the server's INFO to the end."""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio

from trioroom._core.causes import root_of
from trioroom.backplane.nats.credentials import advice_on, credentials_of
from trioroom.backplane.nats.location import Login
from trioroom.backplane.nats.protocol import BadProtocol, Control, Message, Parser
from trioroom.backplane.supervision import LinkLost
from trioroom.backplane.url import Endpoint

_READ_BYTES: Final = 65_536
_UNWANTED: Final = ("Authorization", "User Authentication", "Account Authentication")  # Violation, or Expired
_MAX_ADDRESSES: Final = 64  # of other servers that one may name


@attrs.frozen
class ServerInfo:
    """What a server says of itself, first and whenever it changes."""

    max_payload: int = 1 << 20
    """Bytes of a publication, headers included; it closes the connection of who sends more."""
    id: str = ""
    """Another one each time that it starts."""
    cluster: str = ""
    """The name of the cluster it is part of, if it is."""
    name: str = ""
    addresses: tuple[str, ...] = ()
    """Of all servers of its cluster, as ``host:port``."""
    leaving: bool = False
    """It will close soon (lame duck mode): who can goes elsewhere."""
    headers: bool = True
    tls_required: bool = False
    tls_available: bool = False
    nonce: str = ""
    """To be signed by who has a key."""


def parse_info(argument: bytes) -> ServerInfo:
    """What follows INFO.

    Raises:
        BadProtocol: it is not what a server says.
    """
    try:
        told: dict[str, Any] = json.loads(argument)
        return ServerInfo(
            max_payload=int(told["max_payload"]),
            id=str(told.get("server_id", "")),
            cluster=str(told.get("cluster", "")),
            name=str(told.get("server_name", "")),
            addresses=tuple(str(address) for address in (told.get("connect_urls") or ())[:_MAX_ADDRESSES]),
            leaving=told.get("ldm") is True,
            headers=told.get("headers") is True,
            tls_required=told.get("tls_required") is True,
            tls_available=told.get("tls_available") is True,
            nonce=str(told.get("nonce", "")),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as exc:
        raise BadProtocol(f"its INFO is {argument[:80]!r}") from exc


class NatsConnection:
    """One task may receive at a time; sends take turns."""

    def __init__(self, stream: trio.abc.Stream, endpoint: Endpoint, info: ServerInfo) -> None:
        self.endpoint = endpoint
        self.info = info
        self.received = 0
        """Reads so far; a sign of life for who compares it with an earlier value."""
        self._stream = stream
        self._parser = Parser()
        self._early: list[Message | Control] = []  # that came right behind the answer to CONNECT
        self._turn = trio.Lock()
        self._pinged = trio.Event()

    async def send(self, packed: bytes) -> None:
        """Send operations that are packed already. Cancelled, the connection is torn and has to be closed."""
        async with self._turn:
            try:
                await self._stream.send_all(packed)
            except (OSError, trio.BrokenResourceError) as exc:
                raise LinkLost("the connection broke") from exc

    async def receive(self) -> list[Message | Control]:
        """All that has come, at least one; INFO has been taken into account, and PING will be by `answer_pings`.

        Raises:
            LinkLost: the connection is over, or the peer speaks another protocol.
        """
        events, self._early = self._early, []
        if events:
            await trio.lowlevel.checkpoint()
        while not events:
            events = self._parser.feed(await _read(self._stream))
            self.received += 1
        for event in events:
            if isinstance(event, Control):
                if event.word == b"PING":
                    self._pinged.set()
                elif event.word == b"INFO":
                    self.info = parse_info(event.argument)
        return events

    def put_back(self, events: list[Message | Control]) -> None:
        """Have `receive` return ``events`` next."""
        self._early = events

    async def answer_pings(self) -> None:
        """Until cancelled. Who receives does not do it: it would not read while our sends are not read."""
        while True:
            await self._pinged.wait()
            self._pinged = trio.Event()
            await self.send(b"PONG\r\n")


async def _read(stream: trio.abc.Stream) -> bytes:
    try:
        data = bytes(await stream.receive_some(_READ_BYTES))  # no copy, as it is bytes already
    except (OSError, trio.BrokenResourceError) as exc:
        raise LinkLost("the connection broke") from exc
    if not data:
        raise LinkLost("the server closed the connection")
    return data


@asynccontextmanager
async def open_connection(
    endpoint: Endpoint, login: Login, tls: ssl.SSLContext | None, timeout: float, server_hostname: str | None = None
) -> AsyncIterator[NatsConnection]:
    """Connected and logged in within ``timeout`` seconds; closed, without ceremony, when the context is left.

    Args:
        server_hostname: whose certificate it has to show, if not that of ``endpoint.host``.
    Raises:
        LinkLost: unreachable, too slow, or the server does not want us; the message says which.
    """
    opening = _Opening(endpoint)
    try:
        with trio.move_on_after(timeout) as scope:
            connection = await opening.run(login, tls, server_hostname or endpoint.host)
        if scope.cancelled_caught:
            raise LinkLost(f"no answer within connect_timeout={timeout:g} s")
        yield connection
    finally:
        if opening.stream is not None:
            await trio.aclose_forcefully(opening.stream)


class _Opening:
    """The stream as it becomes a connection; whoever runs it closes it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.stream: trio.abc.Stream | None = None
        self._endpoint = endpoint

    async def run(self, login: Login, tls: ssl.SSLContext | None, server_hostname: str) -> NatsConnection:
        self.stream = await _connect(self._endpoint)
        info = await self._read_info(self.stream)
        if not info.headers:
            raise LinkLost("the server has headers turned off (no_header_support), and JetStream needs them")
        if tls is None and info.tls_required:
            raise LinkLost("the server wants TLS; write nats+tls://")
        if tls is not None:
            if not (info.tls_required or info.tls_available):
                raise LinkLost("the server speaks no TLS; write nats://")
            self.stream = await _secure(self.stream, tls, server_hostname)
            # Who sits between may have said where else to go, with the password. A server says it again inside.
            info = attrs.evolve(info, addresses=(), leaving=False)
        connection = NatsConnection(self.stream, self._endpoint, info)
        await _log_in(connection, login, tls is not None)
        return connection

    async def _read_info(self, stream: trio.abc.Stream) -> ServerInfo:
        # With nothing behind it: what is next under TLS begins with the handshake, which is ours to begin.
        parser = Parser()
        events: list[Message | Control] = []
        while not events:
            events = parser.feed(await _read(stream))
        first, *more = events
        if isinstance(first, Message) or first.word != b"INFO" or more:
            if isinstance(first, Control) and first.word == b"-ERR":
                raise _refusal(first)
            raise BadProtocol(f"it began with {str(first)[:80]}")
        return parse_info(first.argument)


async def _connect(endpoint: Endpoint) -> trio.SocketStream:
    try:
        stream = await trio.open_tcp_stream(endpoint.host, endpoint.port)
    except (OSError, UnicodeError) as exc:  # the latter of a name that no DNS could have
        raise LinkLost(f"cannot connect: {_explain(exc)}") from exc
    # Closing drops what our kernel has not sent: those publications have failed and are not to come later.
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return stream


async def _secure(stream: trio.abc.Stream, tls: ssl.SSLContext, server_hostname: str) -> trio.abc.Stream:
    secure = trio.SSLStream(stream, tls, server_hostname=server_hostname)
    try:
        await secure.do_handshake()
    except trio.BrokenResourceError as exc:
        raise LinkLost(f"TLS failed: {root_of(exc)}") from exc
    return secure


def _explain(exc: Exception) -> str:
    root = root_of(exc)
    if isinstance(root, OSError) and root.errno is not None and root.errno > 0:  # others are of getaddrinfo
        return os.strerror(root.errno)
    return str(root)


async def _log_in(connection: NatsConnection, login: Login, tls: bool) -> None:
    """CONNECT, and a PING whose PONG says that it was taken."""
    told: dict[str, object] = {
        "verbose": False, "pedantic": False, "tls_required": tls, "name": "trioroom", "lang": "python-trio",
        "version": "1", "protocol": 1, "echo": True, "headers": True, "no_responders": True,
        **credentials_of(login, connection.info.nonce),
    }  # fmt: skip
    await connection.send(b"CONNECT %b\r\nPING\r\n" % json.dumps(told).encode())
    while True:
        events = await connection.receive()
        for number, event in enumerate(events):
            if isinstance(event, Control) and event.word == b"-ERR":
                raise _refusal(event, login)
            if isinstance(event, Control) and event.word == b"PONG":
                return connection.put_back(events[number + 1 :])


def _refusal(event: Control, login: Login | None = None) -> LinkLost:
    advice = f"; {advice_on(login)}" if login is not None and event.text.startswith(_UNWANTED) else ""
    return LinkLost(f"the server refused us: {event.text}{advice}")
