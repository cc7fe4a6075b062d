"""Rooms for a server that trio-websocket already runs: its connection as a transport of ours.

Our side speaks frames; trio-websocket has its own. So what we send is taken apart into messages, and
what it hands us is put into frames again. That costs a few microseconds beside what trio-websocket
itself takes, and everything above the transport stays the same.
"""

from __future__ import annotations

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from trioroom._wire.frames import Opcode, encode_masked, take_frame
from trioroom.closecodes import CloseCode


class WebSocketTransport:
    """Sends and receives through ``ws``; the closing handshake is trio-websocket's."""

    __slots__ = ("_ws", "parked")

    def __init__(self, ws: WebSocketConnection) -> None:
        self._ws = ws
        self.parked = False

    def send_nowait(self, data: bytes) -> int:
        """Nothing at once: all goes through the outbox and its writer."""
        return 0

    async def send_all(self, data: bytes) -> None:
        """Send the messages that the frames in ``data`` carry."""
        try:
            while frame := take_frame(data):
                opcode, payload, data = frame
                if opcode == Opcode.TEXT:
                    await self._ws.send_message(payload.decode())
                elif opcode == Opcode.BINARY:
                    await self._ws.send_message(payload)
                elif opcode == Opcode.CLOSE:
                    await self._ws.aclose(int.from_bytes(payload[:2], "big") or 1000, payload[2:].decode())
                # a ping is not ours to send: `watch` asks through trio-websocket
        except ConnectionClosed as exc:
            raise trio.BrokenResourceError from exc

    async def receive(self) -> bytes:
        """The next message, as the frame that carried it; the close frame at the end."""
        self.parked = True
        try:
            message = await self._ws.get_message()
        except ConnectionClosed as exc:
            if exc.reason is None or exc.reason.code == CloseCode.ABNORMAL:
                return b""
            payload = b"" if exc.reason.code == CloseCode.NO_STATUS else exc.reason.code.to_bytes(2, "big")
            return encode_masked(Opcode.CLOSE, payload)
        finally:
            self.parked = False
        if isinstance(message, str):
            return encode_masked(Opcode.TEXT, message.encode())
        return encode_masked(Opcode.BINARY, message)

    def send_eof(self) -> None:
        """Not a WebSocket's to say."""

    async def aclose(self) -> None:
        """The handler that accepted the request closes it."""
