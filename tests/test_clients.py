"""WebSocket clients that users have, against a real socket; the browser's is in tests/demo."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec
import pytest
import trio
from trio_websocket import open_websocket_url
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

import trioroom
from trioroom.testing import open_test_server

T = TypeVar("T")


class Chat(trioroom.Room):
    async def on_join(self, member: trioroom.Member) -> object:
        return "welcome"


@pytest.fixture
def app() -> trioroom.App:
    app = trioroom.App()
    app.route("chat/{name}", Chat)
    return app


async def in_thread(fn: Callable[[], T]) -> T:
    with trio.fail_after(10):
        return await trio.to_thread.run_sync(fn, abandon_on_cancel=True)


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_plain_clients_of_two_libraries_talk(app: trioroom.App, compression: str | None) -> None:
    async with open_test_server(app, trioroom.Settings(compression=True), tcp=True) as server:
        url = f"ws://127.0.0.1:{server.port}/chat/lobby"
        async with open_websocket_url(url) as one:
            assert await one.get_message() == "welcome"
            with await in_thread(partial(connect, url, compression=compression)) as two:
                assert [extension.name for extension in two.protocol.extensions] == (
                    ["permessage-deflate"] if compression else []
                )
                assert await in_thread(two.recv) == "welcome"
                for said in ("hello " * 1000, b"\x00\xff" * 1000):
                    await in_thread(partial(two.send, said))
                    assert await one.get_message() == said
                    await one.send_message(said)
                    assert await in_thread(two.recv) == said
                await in_thread(lambda: two.ping().wait(5))
                await in_thread(two.close)
                assert two.close_code == 1000


async def test_v1_client_of_websockets_joins_publishes_and_hears(app: trioroom.App, subprotocol: str) -> None:
    is_json = subprotocol.endswith("json")

    def encode(value: object) -> str | bytes:
        return msgspec.json.encode(value).decode() if is_json else msgspec.msgpack.encode(value)

    def envelope_in(data: str | bytes) -> dict[str, object]:
        decoded: dict[str, object] = (
            msgspec.json.decode(data) if isinstance(data, str) else msgspec.msgpack.decode(data)
        )
        return decoded

    def talk(one: ClientConnection, two: ClientConnection) -> object:
        for client in (one, two):
            assert envelope_in(client.recv())["type"] == "hello"
            client.send(encode({"type": "join", "id": 1, "room": "chat/a"}))
            assert envelope_in(client.recv()) == {"type": "ok", "id": 1, "room": "chat/a", "state": "welcome"}
        one.send(encode({"type": "publish", "room": "chat/a", "data": {"text": "hello"}}))
        return envelope_in(two.recv())["data"]

    async with open_test_server(app, tcp=True) as server:
        opened = partial(connect, f"ws://127.0.0.1:{server.port}/", subprotocols=[Subprotocol(subprotocol)])
        with await in_thread(opened) as one, await in_thread(opened) as two:
            assert await in_thread(lambda: talk(one, two)) == {"text": "hello"}
            await in_thread(one.close)
            await in_thread(two.close)
