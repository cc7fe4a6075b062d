"""Servers in memory that speak real RESP: one that follows a script, and some that serve Pub/Sub on a fake network."""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import attrs
import hiredis
import trio
from trio.testing import memory_stream_pair

from trioroom.backplane.redis.location import Endpoint, Login
from trioroom.backplane.redis.resp import RedisConnection
from trioroom.backplane.supervision import LinkLost

OK = b"+OK\r\n"
Command = list[bytes]


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(data), data)


def array(*parts: bytes) -> bytes:
    """Of replies that are encoded already."""
    return b"*%d\r\n%s" % (len(parts), b"".join(parts))


def integer(number: int) -> bytes:
    return b":%d\r\n" % number


def error(text: str) -> bytes:
    return b"-%s\r\n" % text.encode()


def push(kind: bytes, name: bytes, value: bytes = b":1\r\n") -> bytes:
    """Of RESP3; ``value`` is encoded already."""
    return b">3\r\n" + bulk(kind) + bulk(name) + value


def message(name: bytes, payload: bytes, kind: bytes = b"message") -> bytes:
    return push(kind, name, bulk(payload))


class Peer:
    """The server's end of a connection; what it says is up to the test."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._reader = hiredis.Reader()

    async def read(self) -> list[Command]:
        """The commands that have come, at least one; empty when the client has closed."""
        commands: list[Command] = []
        while not commands:
            with suppress(trio.BrokenResourceError):
                if data := await self.stream.receive_some():
                    self._reader.feed(bytes(data))
                    while (command := self._reader.gets()) is not False:
                        commands.append(command)
                    continue
            return []
        return commands

    async def say(self, *replies: bytes) -> None:
        await self.stream.send_all(b"".join(replies))

    async def close(self) -> None:
        await self.stream.aclose()


def connect(endpoint: Endpoint | None = None) -> tuple[RedisConnection, Peer]:
    """A connection that is logged in, and who is at its other end."""
    client, server = memory_stream_pair()
    return RedisConnection(client, endpoint or Endpoint("fake", 1)), Peer(server)


# -- Pub/Sub on a fake network ---------------------------------------------------------------------


@attrs.define(eq=False)
class _Session:
    peer: Peer
    outgoing: trio.MemorySendChannel[tuple[float, bytes]]
    scope: trio.CancelScope
    channels: set[bytes] = attrs.field(factory=set)


class FakeServer:
    """Pub/Sub of both kinds; what else it knows is in ``answers``, by the first word of the command."""

    def __init__(self) -> None:
        self.latency = 0.0
        """Of each reply, from now on; ``math.inf`` is a black hole."""
        self.answers: dict[bytes, Callable[[Command], bytes]] = {}
        """Encoded replies; they go before what the server would do by itself."""
        self.incarnation = b"1"
        self.log: list[Command] = []
        self.sessions: list[_Session] = []

    def refuse(self, word: bytes, text: str) -> None:
        self.answers[word] = lambda _: error(text)

    def say(self, data: bytes, channel: bytes) -> None:
        """To all who listen to ``channel``."""
        for session in self.sessions:
            if channel in session.channels:
                self._say(session, data)

    def reset(self) -> None:
        """End all connections."""
        for session in self.sessions:
            session.scope.cancel()

    def channels(self) -> set[bytes]:
        """That somebody listens to; probes have names of their own."""
        return {name for session in self.sessions for name in session.channels if b"probe" not in name}

    async def serve(self, peer: Peer) -> None:
        outgoing, queue = trio.open_memory_channel[tuple[float, bytes]](math.inf)  # the tests' own bounds hold it
        async with trio.open_nursery() as nursery:
            session = _Session(peer, outgoing, nursery.cancel_scope)
            self.sessions.append(session)
            nursery.start_soon(self._send, peer, queue)
            while commands := await peer.read():
                for command in commands:
                    self.log.append(command)
                    self._obey(session, command)
            nursery.cancel_scope.cancel()
        self.sessions.remove(session)
        await trio.aclose_forcefully(peer.stream)

    async def _send(self, peer: Peer, queue: trio.MemoryReceiveChannel[tuple[float, bytes]]) -> None:
        async for when, data in queue:
            await trio.sleep_until(when)
            with suppress(trio.BrokenResourceError):
                await peer.say(data)

    def _say(self, session: _Session, data: bytes) -> None:
        session.outgoing.send_nowait((trio.current_time() + self.latency, data))

    def _obey(self, session: _Session, command: Command) -> None:
        word, *names = command
        if word in self.answers:
            self._say(session, self.answers[word](command))
        elif word.endswith(b"PUBLISH"):
            name, payload = names
            self.say(message(name, payload, b"smessage" if word.startswith(b"S") else b"message"), name)
            self._say(session, integer(1))
        elif word == b"PING":
            self._say(session, b"+PONG\r\n")
        elif word == b"INFO":
            self._say(session, bulk(b"# Server\r\nrun_id:%s\r\n" % self.incarnation))
        else:
            assert word.endswith(b"SUBSCRIBE"), command
            change = session.channels.discard if b"UN" in word else session.channels.add
            for name in names:
                change(name)
                self._say(session, push(word.lower(), name))


class FakeNetwork:
    """Stands for `trioroom.backplane.redis.resp.open_connection`; ports without a server refuse."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.servers: dict[int, FakeServer] = {}
        self.opened: list[tuple[Endpoint, Login]] = []
        """Each attempt to connect."""
        self.times: list[float] = []
        """Of the attempts."""
        self._nursery = nursery

    def add(self, port: int = 1) -> FakeServer:
        return self.servers.setdefault(port, FakeServer())

    def remove(self, port: int = 1) -> FakeServer:
        """It dies."""
        server = self.servers.pop(port)
        server.reset()
        return server

    @asynccontextmanager
    async def open_connection(
        self, endpoint: Endpoint, login: Login, tls: ssl.SSLContext | None, timeout: float
    ) -> AsyncIterator[RedisConnection]:
        self.opened.append((endpoint, login))
        self.times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if endpoint.port not in self.servers:
            raise LinkLost("cannot connect: refused")
        connection, peer = connect(endpoint)
        self._nursery.start_soon(self.servers[endpoint.port].serve, peer)
        try:
            yield connection
        finally:
            await trio.aclose_forcefully(connection._stream)
