"""Clients that reach real servers through memory, and a server of the tests' own that says what a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec
import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

import trioroom
from trioroom.client import Client
from trioroom.client.tokens import Token
from trioroom.testing import open_test_server

Envelope = dict[str, Any]
Codec = Literal["json", "msgpack"]
HELLO: Envelope = {
    "type": "hello", "connection": "c0ffee", "ping_interval": 25.0, "max_message_bytes": 65536, "version": 1,
}  # fmt: skip


@pytest.fixture(params=["json", "msgpack"])
def codec(request: pytest.FixtureRequest) -> Codec:
    """Both encodings."""
    value: Codec = request.param
    return value


class Chat(trioroom.Room):
    """Passes on; tells its topic."""

    async def on_join(self, member: trioroom.Member) -> object:
        return {"topic": "tea"}

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        if message.data == "slow":
            await trio.sleep_forever()
        return [message.data, member.token]


class Private(Chat):
    """Lets in who has the word."""

    async def authorize(self, member: trioroom.Member) -> None:
        if member.token != "t0k3n":
            raise trioroom.JoinRefused("the word is another")


class News(Chat):
    """Keeps what was said, and passes publication ids on as rooms do by default."""

    history = trioroom.History(size=100)


class Lounge(trioroom.Room):
    """Shows who is in it, by token."""

    presence = trioroom.Presence(interval=0.5, grace=0.5)

    async def on_join(self, member: trioroom.Member) -> object:
        member.user, member.info = member.token or member.id, {"name": member.token}
        return None


class Crowd(Lounge):
    """Shows how many are in it."""

    presence = trioroom.Presence(interval=0.5, grace=0.5, count_only=True)


def make_app() -> trioroom.App:
    app = trioroom.App()
    for name, room_class in (
        ("chat", Chat), ("private", Private), ("news", News), ("lounge", Lounge), ("crowd", Crowd),
    ):  # fmt: skip
        app.route(f"{name}/{{name}}", room_class)
    return app


class Line(trioroom.testing.Line):
    """With clients that may have more on their way than is usual."""

    def __init__(self, server: trioroom.Server | Script | None, nursery: trio.Nursery) -> None:
        super().__init__(server, nursery)
        self.nursery = nursery

    def open_client(self, token: Token = None, codec: Codec = "json", **changed: Any) -> Any:
        """As `trioroom.connect`."""
        options = {"max_pending": 1000, "max_message_bytes": 1 << 20, **changed}
        return trioroom.connect("ws://test/", dial=self.dial, token=token, codec=codec, **options)


@asynccontextmanager
async def open_line(server: trioroom.Server | Script | None) -> AsyncIterator[Line]:
    async with trio.open_nursery() as nursery:
        line = Line(server, nursery)
        yield line
        line.cut()


@asynccontextmanager
async def open_app(app: trioroom.App | None = None, **settings: Any) -> AsyncIterator[Line]:
    """A real server, and a line to it."""
    changed = trioroom.Settings(drain_timeout=2.0, close_timeout=1.0, leave_timeout=1.0, **settings)
    async with open_test_server(app or make_app(), changed) as server, open_line(server) as line:
        yield line


# -- a server that says what the test wants ---------------------------------------------------------


class Peer:
    """The server's end of one connection."""

    def __init__(self, ws: WebSocketConnection, stream: trio.abc.Stream) -> None:
        self.ws = ws
        self.stream = stream
        self.done = trio.Event()
        self._is_json = str(ws.subprotocol).endswith("json")

    async def say(self, *envelopes: Envelope) -> None:
        """In one frame."""
        value = envelopes[0] if len(envelopes) == 1 else list(envelopes)
        await self.ws.send_message(
            msgspec.json.encode(value).decode() if self._is_json else msgspec.msgpack.encode(value)
        )

    async def hear(self) -> Any:
        """The next frame of the client, decoded."""
        data = await self.ws.get_message()
        return msgspec.json.decode(data) if isinstance(data, str) else msgspec.msgpack.decode(data)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.ws.aclose(code, reason)
        self.done.set()

    async def cut(self) -> None:
        await trio.aclose_forcefully(self.stream)
        self.done.set()

    async def answer_join(self, room: str, id: int = 1, **fields: object) -> Envelope:
        """Hear a join, and let the client in."""
        heard: Envelope = await self.hear()
        assert (heard["type"], heard["id"], heard["room"]) == ("join", id, room)
        await self.say({"type": "ok", "id": id, "room": room, **fields})
        return heard


class Script:
    """Accepts connections, says hello, and hands them to the test."""

    def __init__(self, **hello: object) -> None:
        self.hello = {**HELLO, **hello}
        self._accepted, self._accepting = trio.open_memory_channel[Peer](10)

    async def accept(self, *, hello: bool = True) -> Peer:
        """The next connection."""
        peer = await self._accepting.receive()
        if hello:
            await peer.say(self.hello)
        return peer

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            ws = await request.accept(subprotocol=request.proposed_subprotocols[0])
            peer = Peer(ws, stream)
            await self._accepted.send(peer)
            await peer.done.wait()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_script(**hello: object) -> AsyncIterator[tuple[Script, Line]]:
    """A scripted server and a line to it; what is still connected in the end is cut."""
    script = Script(**hello)
    async with open_line(script) as line:
        yield script, line
        line.nursery.cancel_scope.cancel()


async def wait_state(client: Client, name: str) -> Any:
    """The client's state, when it is the one with this name."""
    async for state in client.states():
        if state.name == name:
            return state
    raise AssertionError(f"closed before it was {name}")


async def wait_closed(peer: Peer) -> int:
    """The code with which the client closes."""

    async def listen() -> None:
        while True:
            await peer.ws.get_message()

    with pytest.raises(ConnectionClosed) as closed:
        await listen()
    peer.done.set()
    assert closed.value.reason is not None
    return closed.value.reason.code
