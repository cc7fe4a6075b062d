from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock
from trio_websocket import WebSocketConnection, open_websocket_url

from trioroom import open_server
from trioroom.demo.app import MAX_NAME, MAX_TEXT, app, read_visitor
from trioroom.testing import open_v1_peer

ROOM = "chat/x"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with open_server(app, port=0) as server:
        yield server.port


def open_plain(port: int) -> AbstractAsyncContextManager[WebSocketConnection]:
    return open_websocket_url(f"ws://127.0.0.1:{port}/{ROOM}")


@asynccontextmanager
async def open_v1(port: int, token: str | None = None) -> AsyncIterator[WebSocketConnection]:
    """A v1 client in the room, which hears who is in it."""
    async with open_websocket_url(f"ws://127.0.0.1:{port}/", subprotocols=["trioroom.v1.json"]) as client:
        assert (await receive(client))["type"] == "hello"
        if token is not None:
            await client.send_message(json.dumps({"type": "auth", "id": 0, "token": token}))
            assert (await receive(client))["type"] == "ok"
        await client.send_message(json.dumps({"type": "join", "id": 1, "room": ROOM}))
        assert (await receive(client))["type"] == "ok"
        yield client


async def receive(client: WebSocketConnection) -> dict[str, Any]:
    with trio.fail_after(5):
        received: dict[str, Any] = json.loads(await client.get_message())
    return received


async def pushed(client: WebSocketConnection) -> dict[str, Any]:
    """The next message, past the news of who is here."""
    while (envelope := await receive(client))["type"] == "presence":
        pass
    assert (envelope["type"], envelope["room"]) == ("message", ROOM)
    return envelope


async def said(client: WebSocketConnection) -> object:
    """What somebody said."""
    data = (await pushed(client))["data"]
    del data["user"]
    return data


async def publish(client: WebSocketConnection, data: object) -> None:
    await client.send_message(json.dumps({"type": "publish", "room": ROOM, "data": data}))


async def test_message_reaches_all_members_and_its_sender(port: int) -> None:
    async with open_v1(port) as one, open_v1(port) as two:
        await publish(one, {"name": " Ada ", "text": " hi "})
        for client in (one, two):
            assert await said(client) == {"kind": "message", "name": "Ada", "text": " hi "}


async def test_who_is_here_goes_by_what_a_page_calls_itself(autojump_clock: MockClock) -> None:
    tokens = ['{"user":"u1","name":" Ada "}', '{"user":"u2","name":"Grace"}', '{"user":"u1","name":"Ada again"}']
    async with open_server(app, port=0) as server, AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(open_v1_peer(server)) for _ in range(4)]
        for peer, token in zip(peers, [*tokens, "no such token"], strict=True):
            await peer.request("auth", token=token)
            await peer.join(ROOM)
        await trio.sleep(2)
        who = await peers[0].request("who", room=ROOM)
        names = {member["user"]: member["info"]["name"] for member in who["members"]}
        guest = peers[3].id
        assert (set(names), who["count"]) == ({"u1", "u2", guest}, 3)
        assert (names["u2"], names[guest]) == ("Grace", f"guest-{guest[:4]}")
        assert names["u1"] in ("Ada", "Ada again")


@pytest.mark.parametrize(
    "token",
    [
        *(None, "", "Ada", "[]", "{}", '{"user":"","name":"Ada"}', '{"user":"u","name":" "}', '{"user":"u","name":7}'),
        '{"user":"%s","name":"Ada"}' % ("u" * 65),
        '{"user":"u","name":"%s"}' % ("a" * 41),
    ],
)
def test_token_that_names_nobody_is_no_visitor(token: str | None) -> None:
    assert read_visitor(token) is None


async def test_what_was_said_before_can_be_asked_for(port: int) -> None:
    async with open_v1(port) as one:
        for number in range(3):
            await publish(one, {"name": "Ada", "text": str(number)})
            await pushed(one)
    async with open_v1(port) as two:
        await two.send_message(json.dumps({"type": "history", "id": 2, "room": ROOM, "limit": 2}))
        while (answer := await receive(two)).get("id") != 2:
            pass
        assert [message["data"]["text"] for message in answer["messages"]] == ["1", "2"]


async def test_message_that_is_sent_again_is_said_once(port: int) -> None:
    async with open_v1(port) as one:
        post = {"type": "publish", "room": ROOM, "data": {"name": "Ada", "text": "once"}, "publication_id": "p1"}
        for _ in range(2):
            await one.send_message(json.dumps(post))
        await publish(one, {"name": "Ada", "text": "then"})
        assert [(await pushed(one))["data"]["text"] for _ in range(2)] == ["once", "then"]


@pytest.mark.parametrize("text", ["hello", '{"name":"Eve","text":"I am not Ada"}', "a" * MAX_TEXT])
async def test_text_of_a_plain_client_is_said_verbatim_by_a_guest(port: int, text: str) -> None:
    async with open_v1(port) as witness, open_plain(port) as plain:
        await plain.send_message(text)
        envelope = await pushed(witness)
        name, user = f"guest-{envelope['from'][:4]}", envelope["from"]
        assert envelope["data"] == {"kind": "message", "user": user, "name": name, "text": text}
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
    async with open_v1(port) as witness, open_v1(port) as sender:
        await publish(sender, data)
        error = (await pushed(sender))["data"]
        assert error["kind"] == "error"
        assert complaint in error["text"]
        post = {"name": "a" * MAX_NAME, "text": "a" * MAX_TEXT}
        await publish(sender, post)
        for client in (sender, witness):
            assert await said(client) == {"kind": "message", **post}


@pytest.mark.parametrize("data", [b"\x00\x01", ""])
async def test_binary_or_empty_message_of_a_plain_client_is_explained(port: int, data: bytes | str) -> None:
    async with open_plain(port) as plain:
        await plain.send_message(data)
        assert (await receive(plain))["kind"] == "error"
        await plain.send_message("hi")
        assert (await receive(plain))["text"] == "hi"
