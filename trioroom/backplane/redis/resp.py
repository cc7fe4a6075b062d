"""One connection to one server: commands packed and replies parsed by hiredis, bytes on a Trio stream."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeAlias

import hiredis
import trio
from redis.exceptions import ResponseError

from trioroom._core.causes import root_of
from trioroom.backplane.redis.location import Endpoint, Login
from trioroom.backplane.supervision import LinkLost

Reply: TypeAlias = Any
"""What hiredis makes of a reply: bytes, int, None, a list, or a `ResponseError` (returned, not raised)."""

pack: Callable[[tuple[str | bytes | int, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]  # see below
"""A command as bytes; hiredis types this for tuples of one."""

_READ_BYTES = 65_536
_INCOMPLETE = object()


class CallRefused(LinkLost):
    """The server answered a command with an error."""


class _NoRedis(LinkLost):
    """What answers speaks another protocol."""

    def __init__(self, text: str) -> None:
        super().__init__(f"what answers there is no Redis: {text}")


class RedisConnection:
    """Replies come in the order of the commands, pushes in between; one task may send and one receive at a time."""

    def __init__(self, stream: trio.abc.Stream, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.received = 0
        """Reads so far; a sign of life for who compares it with an earlier value."""
        self._stream = stream
        self._reader = hiredis.Reader(protocolError=_NoRedis, replyError=ResponseError, notEnoughData=_INCOMPLETE)

    async def send(self, packed: bytes) -> None:
        """Send commands that are packed already. Cancelled, the connection is torn and has to be closed."""
        try:
            await self._stream.send_all(packed)
        except (OSError, trio.BrokenResourceError) as exc:
            raise LinkLost("the connection broke") from exc

    async def receive(self) -> list[Reply]:
        """All replies and pushes that have come, at least one.

        Raises:
            LinkLost: the connection is over, or the peer speaks another protocol.
        """
        replies: list[Reply] = []
        while not replies:
            try:
                data = bytes(await self._stream.receive_some(_READ_BYTES))  # no copy, as it is bytes already
            except (OSError, trio.BrokenResourceError) as exc:
                raise LinkLost("the connection broke") from exc
            if not data:
                raise LinkLost("the server closed the connection")
            self.received += 1
            self._reader.feed(data)
            try:
                while (reply := self._reader.gets()) is not _INCOMPLETE:
                    replies.append(reply)
            except TypeError as exc:  # a map whose keys are lists, say: RESP3 allows it, Python does not
                raise LinkLost(f"no reply that we could use: {exc}") from exc
        return replies

    async def call(self, *command: str | bytes | int) -> Reply:
        """One command and its reply, on a connection that does nothing else now.

        Raises:
            CallRefused: the server's error reply.
            LinkLost: the connection is over.
        """
        await self.send(pack(command))
        while True:
            for reply in await self.receive():
                if isinstance(reply, ResponseError):
                    raise CallRefused(str(reply))
                if not isinstance(reply, hiredis.PushNotification):
                    return reply


@contextmanager
def reading_reply(command: str) -> Iterator[None]:
    """Around what takes a reply apart: proxies answer commands that they do not know with what they like."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as exc:
        raise LinkLost(f"the reply to {command} is not what it should be: {exc!r}") from exc


@asynccontextmanager
async def open_connection(
    endpoint: Endpoint, login: Login, tls: ssl.SSLContext | None, timeout: float
) -> AsyncIterator[RedisConnection]:
    """Connected and logged in within ``timeout`` seconds; closed, without ceremony, when the context is left.

    Raises:
        LinkLost: unreachable, too slow, or the server does not want us; the message says which.
    """
    stream: trio.abc.Stream | None = None
    try:
        with trio.move_on_after(timeout) as scope:
            stream = await _connect(endpoint, tls)
            connection = RedisConnection(stream, endpoint)
            await _log_in(connection, login)
        if scope.cancelled_caught:
            raise LinkLost(f"no answer within connect_timeout={timeout:g} s")
        yield connection
    finally:
        if stream is not None:
            await trio.aclose_forcefully(stream)


async def _connect(endpoint: Endpoint, tls: ssl.SSLContext | None) -> trio.abc.Stream:
    try:
        if endpoint.path is not None:
            return await trio.open_unix_socket(endpoint.path)
        stream = await trio.open_tcp_stream(endpoint.host, endpoint.port)
        # Closing drops what our kernel has not sent: those publications have failed and are not to come later.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except (OSError, UnicodeError) as exc:  # the latter of a name that no DNS could have
        raise LinkLost(f"cannot connect: {_explain(exc)}") from exc
    if tls is None:
        return stream
    secure = trio.SSLStream(stream, tls, server_hostname=endpoint.host)
    try:
        await secure.do_handshake()
    except trio.BrokenResourceError as exc:
        await trio.aclose_forcefully(secure)
        raise LinkLost(f"TLS failed: {root_of(exc)}") from exc
    except BaseException:
        await trio.aclose_forcefully(secure)
        raise
    return secure


def _explain(exc: Exception) -> str:
    root = root_of(exc)
    if isinstance(root, OSError) and root.errno is not None and root.errno > 0:  # others are of getaddrinfo
        return os.strerror(root.errno)
    return str(root)


async def _log_in(connection: RedisConnection, login: Login) -> None:
    """HELLO (https://redis.io/docs/latest/commands/hello/), or AUTH where RESP2 is asked for or all there is."""
    credentials = [login.username or "default", login.password] if login.password is not None else []
    try:
        greeted = login.protocol == 3 and await _say_hello(connection, login, credentials)
        if not greeted:
            if credentials:  # a server before Redis 6 knows no users
                await connection.call("AUTH", *(credentials if login.username else credentials[1:]))
            with suppress(CallRefused):  # an ACL may forbid it, and it is for people only
                await connection.call("CLIENT", "SETNAME", login.client_name)
        if login.db:
            await connection.call("SELECT", login.db)
    except CallRefused as exc:
        raise LinkLost(f"the server refused us: {exc}{_advice(str(exc))}") from exc


async def _say_hello(connection: RedisConnection, login: Login, credentials: list[str]) -> bool:
    authenticate = ["AUTH", *credentials] if credentials else []
    try:
        await connection.call("HELLO", 3, *authenticate, "SETNAME", login.client_name)
    except CallRefused as exc:
        if str(exc).startswith(("ERR unknown command", "NOPROTO")):
            return False
        raise
    return True


async def ask_incarnation(connection: RedisConnection) -> bytes:
    """What the server calls this run of itself; another one after a restart, and with every other server.

    INFO: https://redis.io/docs/latest/commands/info/. Empty where an ACL or a proxy keeps it from us.
    """
    with suppress(CallRefused), reading_reply("INFO"):
        for line in (await connection.call("INFO", "server") or b"").splitlines():
            if line.startswith(b"run_id:"):
                return bytes(line.removeprefix(b"run_id:"))
    return b""


async def check_loaded(connection: RedisConnection) -> None:
    """Whether the server has read its data: until then it lets us in, has us subscribe, and refuses what has a key.

    PING: https://redis.io/docs/latest/commands/ping/.

    Raises:
        LinkLost: it has not.
    """
    try:
        await connection.call("PING")
    except CallRefused as exc:  # anything else is no sign of that, such as an ACL that forbids it
        if str(exc).startswith("LOADING"):
            raise LinkLost("it still reads its data, as after a restart; it serves when it has") from exc


def _advice(error: str) -> str:
    if error.startswith(("WRONGPASS", "NOAUTH", "ERR invalid password", "ERR AUTH")):
        return "; check user and password in the URL"
    return ""
