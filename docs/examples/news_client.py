"""A client that keeps its place, and what it has to say, over all its connections."""

import json
import secrets
from contextlib import suppress
from typing import Any

import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, open_websocket_url


class NewsReader:
    def __init__(self, url: str, room: str) -> None:
        self.url = url
        self.room = room
        self.position: dict[str, Any] | None = None
        self.read: list[object] = []
        self.complete = True
        self.unanswered: dict[str, object] = {}  # data by publication id, in the order of publishing
        self._joined: WebSocketConnection | None = None

    async def run(self) -> None:
        """Until cancelled: read, and come back when the connection is lost."""
        while True:
            with suppress(ConnectionClosed, HandshakeError, OSError):
                async with open_websocket_url(self.url, subprotocols=["trioroom.v1.json"]) as connection:
                    await self._read(connection)
            self._joined = None
            await trio.sleep(0.2)  # a real client waits longer each time, and not always as long as others

    async def publish(self, data: object) -> None:
        """It goes out once, over as many connections as that takes, perhaps after this has returned."""
        publication_id = secrets.token_hex(8)
        self.unanswered[publication_id] = data
        if self._joined is not None:
            with suppress(ConnectionClosed):  # the next one takes it
                await self._send_publication(self._joined, publication_id, data)

    async def _send_publication(self, connection: WebSocketConnection, publication_id: str, data: object) -> None:
        publish = {"type": "publish", "room": self.room, "data": data}
        await connection.send_message(json.dumps({**publish, "id": publication_id, "publication_id": publication_id}))

    async def _read(self, connection: WebSocketConnection) -> None:
        join = {"type": "join", "id": "join", "room": self.room, "position": self.position}
        await connection.send_message(json.dumps(join))
        while True:
            envelope = json.loads(await connection.get_message())
            if envelope["type"] == "error":
                if envelope["retry"]:
                    return  # all of it again, a little later
                raise RuntimeError(envelope["message"])
            self._take(envelope)
            if envelope["type"] == "ok" and envelope["id"] == "join":
                self._joined = connection
                for publication_id, data in list(self.unanswered.items()):
                    await self._send_publication(connection, publication_id, data)

    def _take(self, envelope: dict[str, Any]) -> None:
        match envelope["type"]:
            case "ok" if envelope["id"] == "join":
                self.complete = self.complete and envelope.get("recovered", True)
                self.position = envelope["position"]
            case "ok":
                del self.unanswered[envelope["id"]]
            case "message":
                self.read.append(envelope["data"])
                if self.position is not None and "offset" in envelope:
                    self.position = {**self.position, "offset": envelope["offset"]}
            case "position":
                self.position = envelope["position"]
            case "gap":
                self.complete = False
                self.position = envelope.get("position", self.position)
