"""Rooms for a server that trio-websocket already runs: its connection as a transport of ours.

Our side speaks frames; trio-websocket has its own. So what we send is taken apart into messages, and
what it hands us is put into frames again. That costs a few microseconds beside what trio-websocket
itself takes, and everything above the transport stays the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest

from trioroom._net.transport import AwaitedTransport
from trioroom._wire.client_frames import encode_masked, take_frame
from trioroom._wire.codec import CODECS
from trioroom._wire.frames import Opcode
from trioroom._wire.handshake import Acceptance
from trioroom._wire.http import Request, split_target
from trioroom.closecodes import CloseCode
from trioroom.errors import HandshakeError

if TYPE_CHECKING:
    from trio_websocket import Endpoint

    from trioroom._net.arrival import Arrival
    from trioroom._net.connection import Connection
    from trioroom._net.entrance import Entrance
    from trioroom._net.handshake import Greeter
    from trioroom.settings import Settings


class WebSocketTransport(AwaitedTransport):
    """Sends and receives through ``ws``; the closing handshake is trio-websocket's."""

    __slots__ = ("_ws",)

    parked = False  # not for the heartbeat wheel: `_watch` asks through trio-websocket, which has the pongs

    def __init__(self, ws: WebSocketConnection) -> None:
        super().__init__()
        self._ws = ws

    def address(self) -> str | None:
        """The IP address at the other end."""
        return _address_of(self._ws.remote)

    async def send_all(self, data: bytes) -> None:
        """Send the messages that the frames in ``data`` carry."""
        rest = memoryview(data)
        try:
            while frame := take_frame(rest):
                opcode, payload, rest = frame
                if opcode == Opcode.TEXT:
                    await self._ws.send_message(str(payload, "utf-8"))
                elif opcode == Opcode.BINARY:
                    await self._ws.send_message(bytes(payload))
                elif opcode == Opcode.CLOSE:
                    code = int.from_bytes(payload[:2], "big") if payload else CloseCode.NORMAL
                    await self._ws.aclose(code, str(payload[2:], "utf-8"))
        except ConnectionClosed as exc:
            raise trio.BrokenResourceError("trio-websocket's connection is closed") from exc

    async def _receive(self) -> bytes:
        """The next message, as the frame that carried it; the close frame at the end."""
        try:
            message = await self._ws.get_message()
        except ConnectionClosed as exc:
            code = CloseCode.ABNORMAL if exc.reason is None else exc.reason.code
            if code == CloseCode.ABNORMAL:
                return b""
            return encode_masked(Opcode.CLOSE, b"" if code == CloseCode.NO_STATUS else code.to_bytes(2, "big"))
        if isinstance(message, str):
            return encode_masked(Opcode.TEXT, message.encode())
        return encode_masked(Opcode.BINARY, message)

    def send_eof(self) -> None:
        """Not for a WebSocket to say."""

    async def aclose(self) -> None:
        """Left to trio-websocket's handler, which owns the connection."""


async def serve_websocket_request(
    entrance: Entrance, greeter: Greeter, settings: Settings, asked: WebSocketRequest
) -> None:
    """See `trioroom.Server.serve_websocket_request`."""
    try:
        arrival = entrance.let_in(_address_of(asked.remote))
    except HandshakeError as exc:
        await _reject(asked, exc)
        return
    try:
        await _serve(greeter, settings, asked, arrival)
    finally:
        arrival.place.leave()


async def _serve(greeter: Greeter, settings: Settings, asked: WebSocketRequest, arrival: Arrival) -> None:
    try:
        request = _to_request(asked)
        address = greeter.trace(request, arrival).address
        subprotocol = next((name for name in asked.proposed_subprotocols if name in CODECS), None)
        acceptance = Acceptance(subprotocol, None, b"")
        request = greeter.to_keep(request, acceptance, arrival)
        _check_origin(request, settings)
        greeter.check_admission(request, subprotocol)
        deadline = trio.current_time() + settings.handshake_timeout
        verdict = await greeter.authenticate(request, subprotocol, deadline)
        greeter.check_admission(request, subprotocol)  # draining may have begun meanwhile
    except HandshakeError as exc:
        greeter.count_refusal(exc)
        await _reject(asked, exc)
        return
    ws = await asked.accept(subprotocol=subprotocol)
    connection = greeter.connect(WebSocketTransport(ws), request, acceptance, verdict, address)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, ws, connection, settings)
            await connection.run(b"")
            nursery.cancel_scope.cancel()
    finally:
        greeter.forget(connection)


async def _reject(asked: WebSocketRequest, refusal: HandshakeError) -> None:
    headers = [(name.encode(), value.encode()) for name, value in refusal.headers]
    await asked.reject(refusal.status, extra_headers=headers, body=f"{refusal}\n".encode())


def _address_of(remote: Endpoint | str) -> str | None:
    return None if isinstance(remote, str) else str(remote.address)


def _to_request(asked: WebSocketRequest) -> Request:
    headers = tuple((name.decode("ascii").lower(), value.decode("latin-1")) for name, value in asked.headers)
    return Request("GET", asked.path, *split_target(asked.path), headers)


def _check_origin(request: Request, settings: Settings) -> None:
    # trio-websocket keeps the Host header to itself, so the same-host default cannot be checked here;
    # a browser that might come from anywhere stays out until someone has said from where it may.
    origin, allowed = request.header("origin"), settings.allowed_origins or ()
    if origin is not None and "*" not in allowed and origin not in allowed:
        raise HandshakeError(403, f"origin {origin[:80]!r} is not allowed; have it added to allowed_origins")


async def _watch(ws: WebSocketConnection, connection: Connection, settings: Settings) -> None:
    """This connection's heartbeat."""
    while True:
        await trio.sleep(settings.ping_interval)
        with trio.move_on_after(settings.ping_timeout) as scope:
            try:
                await ws.ping()
            except ConnectionClosed:
                return
        if scope.cancelled_caught:
            connection.close(CloseCode.PING_TIMEOUT, f"no pong within {settings.ping_timeout:g} s")
            return
