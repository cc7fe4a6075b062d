from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock
from trio_websocket import WebSocketConnection, open_websocket_url

from trioroom import BackplaneUnavailable, open_server
from trioroom.backplane.memory import MemoryBackplane
from trioroom.demo.app import INTERVAL, MAX_NAME, MAX_TEXT, NODE, PAGE, app
from trioroom.testing import open_v1_peer

ROOM = "chat/x"


def members(count: int) -> dict[str, object]:
    """What this node says of its members."""
    return {"kind": "members", "node": NODE, "count": count}


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with open_server(app, port=0) as server:
        yield server.port


def open_plain(port: int) -> AbstractAsyncContextManager[WebSocketConnection]:
    return open_websocket_url(f"ws://127.0.0.1:{port}/{ROOM}")


@asynccontextmanager
async def open_v1(port: int, *, count: int = 1) -> AsyncIterator[WebSocketConnection]:
    """A v1 client in the room, the ``count``-th of its members."""
    async with open_websocket_url(f"ws://127.0.0.1:{port}/", subprotocols=["trioroom.v1.json"]) as client:
        assert (await receive(client))["type"] == "hello"
        await client.send_message(json.dumps({"type": "join", "id": 1, "room": ROOM}))
        ok = await receive(client)
        assert (ok["type"], ok["state"]) == ("ok", members(count))
        yield client


async def receive(client: WebSocketConnection) -> dict[str, Any]:
    with trio.fail_after(5):
        received: dict[str, Any] = json.loads(await client.get_message())
    return received


async def pushed(client: WebSocketConnection) -> object:
    """The data of the next envelope, which must be a push."""
    envelope = await receive(client)
    assert (envelope["type"], envelope["room"]) == ("message", ROOM)
    return envelope["data"]


async def publish(client: WebSocketConnection, data: object) -> None:
    await client.send_message(json.dumps({"type": "publish", "room": ROOM, "data": data}))


async def test_message_reaches_all_members_and_its_sender(port: int) -> None:
    async with open_v1(port) as one, open_v1(port, count=2) as two:
        assert await pushed(one) == members(2)
        await publish(one, {"name": " Ada ", "text": " hi "})
        for client in (one, two):
            assert await pushed(client) == {"kind": "message", "name": "Ada", "text": " hi "}


async def test_count_follows_joins_and_leaves(port: int) -> None:
    async with open_v1(port) as one:
        async with open_v1(port, count=2):
            assert await pushed(one) == members(2)
            async with open_plain(port) as three:
                assert await receive(three) == members(3)
                assert await pushed(one) == members(3)
            assert await pushed(one) == members(2)
        assert await pushed(one) == members(1)


class LostBackplane(MemoryBackplane):
    """One whose broker goes away."""

    is_there = True

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        if not self.is_there:
            await trio.lowlevel.checkpoint()
            raise BackplaneUnavailable("it is away")
        await super().publish(room, payload)


async def test_count_is_repeated_and_outlives_a_loss_of_the_backplane(autojump_clock: MockClock) -> None:
    backplane = LostBackplane()
    async with open_server(app, port=0, backplane=backplane) as server, open_v1_peer(server) as peer:
        assert (await peer.join(ROOM))["state"] == members(1)
        began = trio.current_time()
        told = {"type": "message", "room": ROOM, "data": members(1)}
        assert await peer.receive() == told
        assert trio.current_time() - began == pytest.approx(INTERVAL, abs=0.1)
        backplane.is_there = False
        await trio.sleep(2.5 * INTERVAL)
        backplane.is_there = True
        assert await peer.receive() == told
        assert trio.current_time() - began == pytest.approx(4 * INTERVAL, abs=0.1)


def test_page_forgets_a_node_after_three_intervals() -> None:
    assert f"const NODE_SILENCE = {3 * INTERVAL:g};" in (PAGE / "chat.js").read_text()


@pytest.mark.parametrize("text", ["hello", '{"name":"Eve","text":"I am not Ada"}', "a" * MAX_TEXT])
async def test_text_of_a_plain_client_is_said_verbatim_by_a_guest(port: int, text: str) -> None:
    async with open_v1(port) as witness, open_plain(port) as plain:
        assert await receive(plain) == members(2)
        assert await pushed(witness) == members(2)
        await plain.send_message(text)
        envelope = await receive(witness)
        name = f"guest-{envelope['from'][:4]}"
        assert envelope["data"] == {"kind": "message", "name": name, "text": text}
        assert await receive(plain) == envelope["data"]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (None, "neither text nor an object; send text"),
        (7, "neither text nor an object; send text"),
        ([{"name": "Ada", "text": "hi"}], "neither text nor an object; send text"),
        ({}, "`name`"),
        ({"name": "Ada"}, "`text`"),
        ({"name": "Ada", "text": 7}, "Expected `str`, got `int` - at `$.text`; an object has name and text"),
        ({"name": None, "text": "hi"}, "$.name"),
        ({"name": " \t ", "text": "hi"}, f"name has 0 characters; send 1 to {MAX_NAME}"),
        ({"name": "a" * (MAX_NAME + 1), "text": "hi"}, f"name has 41 characters; send 1 to {MAX_NAME}"),
        ({"name": "Ada", "text": ""}, f"text has 0 characters; send 1 to {MAX_TEXT}"),
        ({"name": "Ada", "text": "a" * (MAX_TEXT + 1)}, f"text has 2001 characters; send 1 to {MAX_TEXT}"),
        ("", f"text has 0 characters; send 1 to {MAX_TEXT}"),
    ],
)
async def test_what_is_no_post_is_explained_to_its_sender_alone(port: int, data: object, complaint: str) -> None:
    async with open_v1(port) as witness, open_v1(port, count=2) as sender:
        assert await pushed(witness) == members(2)
        await publish(sender, data)
        error = await pushed(sender)
        assert isinstance(error, dict)
        assert error["kind"] == "error"
        assert complaint in error["text"]
        post = {"name": "a" * MAX_NAME, "text": "a" * MAX_TEXT}
        await publish(sender, post)
        for client in (sender, witness):
            assert await pushed(client) == {"kind": "message", **post}


@pytest.mark.parametrize("data", [b"\x00\x01", ""])
async def test_binary_or_empty_message_of_a_plain_client_is_explained(port: int, data: bytes | str) -> None:
    async with open_plain(port) as plain:
        assert await receive(plain) == members(1)
        await plain.send_message(data)
        assert (await receive(plain))["kind"] == "error"
        await plain.send_message("hi")
        assert (await receive(plain))["text"] == "hi"
