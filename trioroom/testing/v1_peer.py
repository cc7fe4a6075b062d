"""A peer that speaks protocol v1: requests and their answers, pushes in between."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from trioroom._wire.codec import CODECS
from trioroom._wire.frames import Opcode
from trioroom.server import Server
from trioroom.testing.peer import Peer, open_peer

Envelope = dict[str, Any]
"""As it is on the wire: its ``type`` and fields."""


class V1Peer:
    """A client's end of one v1 connection, in JSON or MessagePack. Get it from `open_v1_peer`."""

    def __init__(self, peer: Peer, subprotocol: str) -> None:
        self.peer = peer
        """What is below the envelopes, such as frames and closing."""
        self.hello: Envelope = {}
        """The server's first envelope."""
        self.last_id = 0
        """The ``id`` of the latest `request`."""
        self._is_text = CODECS[subprotocol].opcode is Opcode.TEXT
        self._kept: deque[Envelope] = deque()

    @property
    def id(self) -> str:
        """What the rooms know this connection's members by."""
        return str(self.hello["connection"])

    async def send(self, *envelopes: Envelope) -> None:
        """Send envelopes in one frame: one as it is, several as an array."""
        value = envelopes[0] if len(envelopes) == 1 else envelopes
        await self.peer.send(msgspec.json.encode(value).decode() if self._is_text else msgspec.msgpack.encode(value))

    async def receive(self) -> Envelope:
        """The next envelope, of any type.

        Raises:
            ConnectionClosed: the server closed; code and reason are its own.
        """
        return self._kept.popleft() if self._kept else await self._decode_next()

    async def request(self, type: str, **fields: object) -> Envelope:
        """Ask with an ``id`` of its own, and return the answer. What comes before that is kept for `receive`."""
        self.last_id += 1
        await self.send({"type": type, "id": self.last_id, **fields})
        return await self.receive_answer(self.last_id)

    async def receive_answer(self, id: int | str) -> Envelope:
        """The ``ok`` or ``error`` to the request ``id``; what comes before it is kept for `receive`."""
        while (envelope := await self._decode_next()).get("id") != id:
            self._kept.append(envelope)
        return envelope

    async def join(self, room: str) -> Envelope:
        """Join a room that lets us in."""
        answer = await self.request("join", room=room)
        assert answer["type"] == "ok", answer
        return answer

    async def _decode_next(self) -> Envelope:
        data = await self.peer.receive()
        if self._is_text:
            assert isinstance(data, str), data
            decoded: Envelope = msgspec.json.decode(data)
        else:
            assert isinstance(data, bytes), data
            decoded = msgspec.msgpack.decode(data)
        return decoded


@asynccontextmanager
async def open_v1_peer(
    server: Server, path: str = "/", *, subprotocol: str = "trioroom.v1.json", tcp: bool = False
) -> AsyncIterator[V1Peer]:
    """`open_peer` that speaks v1; the server has said hello."""
    async with open_peer(server, path, subprotocol=subprotocol, tcp=tcp) as peer:
        v1 = V1Peer(peer, subprotocol)
        v1.hello = await v1.receive()
        yield v1
