"""A server that asks who its peers are, and what it asks."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import memory_stream_pair

import trioroom
from trioroom.testing import V1Peer, open_test_server

if TYPE_CHECKING:
    from tests._net.conftest import Greet

V1 = "Sec-WebSocket-Protocol: trioroom.v1.json"
LIFE = 60.0


class Hook:
    """Takes ``user`` and ``user:seconds`` for tokens; without one, a peer is what ``without_token`` says."""

    def __init__(self) -> None:
        self.asked: list[trioroom.Credentials] = []
        self.without_token: trioroom.Identity | Exception | None = trioroom.AuthenticationRefused("who are you?")
        self.failure: Exception | None = None
        self.hangs = False

    async def __call__(self, credentials: trioroom.Credentials) -> trioroom.Identity | None:
        self.asked.append(credentials)
        await trio.lowlevel.checkpoint()
        if self.hangs:
            await trio.sleep_forever()
        if self.failure is not None:
            raise self.failure
        if credentials.token is None:
            if isinstance(self.without_token, Exception):
                raise self.without_token
            return self.without_token
        if credentials.token == "nobody":
            return None
        user, _, seconds = credentials.token.partition(":")
        if user == "forged":
            raise trioroom.AuthenticationRefused("the signature is wrong")
        return trioroom.Identity(user, {"name": user.title()}, time.time() + float(seconds) if seconds else None)


class Who(trioroom.Room):
    """Tells everyone who they are."""

    async def authorize(self, member: trioroom.Member) -> None:
        if self.name == "who/admins" and (member.identity is None or member.identity.user != "root"):
            raise trioroom.JoinRefused("admins only")

    async def on_join(self, member: trioroom.Member) -> object:
        return [member.user if member.identity else None, member.info]

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        return member.identity and member.identity.expires_at


@pytest.fixture
def hook() -> Hook:
    return Hook()


@pytest.fixture
async def server(hook: Hook) -> AsyncIterator[trioroom.Server]:
    app = trioroom.App(authenticate=hook)
    app.route("who/{name}", Who)
    async with open_test_server(app, trioroom.Settings(ping_interval=math.inf)) as server:  # peers that do not read
        yield server


async def answer_to(server: trioroom.Server, request: bytes) -> tuple[int, str, str]:
    """Status, head and body of what ``request`` is answered with."""
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        await ours.send_all(request)
        await ours.send_eof()
        received = b"".join([bytes(data) async for data in ours]).decode("latin-1")
    head, _, body = received.partition("\r\n\r\n")
    return int(head.split()[1]), head, body


@asynccontextmanager
async def greeted(server: trioroom.Server, greet: Greet, *headers: str) -> AsyncIterator[V1Peer]:
    """A v1 peer with these headers in its handshake."""
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        v1 = V1Peer(await greet(ours, "/", (V1, *headers)), "trioroom.v1.json")
        v1.hello = await v1.receive()
        yield v1
        await trio.aclose_forcefully(ours)
