"""A client that keeps its place over all its connections."""

import json
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

    async def run(self) -> None:
        """Until cancelled: read, and come back when the connection is lost."""
        while True:
            try:
                async with open_websocket_url(self.url, subprotocols=["trioroom.v1.json"]) as connection:
                    await self._read(connection)
            except (ConnectionClosed, HandshakeError, OSError):
                await trio.sleep(0.2)  # a real client waits longer each time, and not always as long as others

    async def _read(self, connection: WebSocketConnection) -> None:
        join = {"type": "join", "id": 1, "room": self.room, "position": self.position}
        await connection.send_message(json.dumps(join))
        while True:
            self._take(json.loads(await connection.get_message()))

    def _take(self, envelope: dict[str, Any]) -> None:
        if envelope["type"] == "ok":
            self.complete = self.complete and envelope.get("recovered", True)
            self.position = envelope["position"]
        elif envelope["type"] == "message":
            self.read.append(envelope["data"])
            if self.position is not None and "offset" in envelope:
                epoch = envelope.get("epoch", self.position["epoch"])
                self.position = {"epoch": epoch, "offset": envelope["offset"]}
        elif envelope["type"] == "gap":
            self.complete = False
            self.position = envelope.get("position", self.position)
