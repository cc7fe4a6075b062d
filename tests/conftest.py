"""What tests of several folders share."""

from __future__ import annotations

import pytest
import trio

import trioroom
from trioroom._net.transport import AwaitedTransport
from trioroom._wire.frames import Opcode, encode_masked, take_frame
from trioroom._wire.message import Data

pytest.register_assert_rewrite("trioroom.testing.conformance")  # it is no test module to pytest, but has asserts


@pytest.fixture(params=["trioroom.v1.json", "trioroom.v1.msgpack"])
def subprotocol(request: pytest.FixtureRequest) -> str:
    """Both encodings of protocol v1."""
    value: str = request.param
    return value


class Recorder(AwaitedTransport):
    """A transport that takes all at once and keeps each send apart; its peer says what the test says."""

    parked = True

    def __init__(self) -> None:
        super().__init__()
        self.sends: list[bytes] = []
        """Each with all its frames."""
        self._said, self._heard = trio.open_memory_channel[bytes](100)

    def send_nowait(self, data: bytes) -> int:
        self.sends.append(data)
        return len(data)

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sends.append(data)

    async def _receive(self) -> bytes:
        async for data in self._heard:
            return data
        return b""

    def send_eof(self) -> None:
        pass

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    def say(self, message: str | bytes) -> None:
        """A message of the peer."""
        text = isinstance(message, str)
        payload = message.encode() if isinstance(message, str) else message
        self._said.send_nowait(encode_masked(Opcode.TEXT if text else Opcode.BINARY, payload))

    def hang_up(self) -> None:
        """The peer is gone."""
        self._said.close()

    def take(self) -> list[Data]:
        """The messages sent since the last time."""
        rest = b"".join(self.sends)
        messages: list[Data] = []
        self.sends.clear()
        while frame := take_frame(rest):
            opcode, payload, rest = frame
            messages.append(payload.decode() if opcode == Opcode.TEXT else payload)
        assert rest == b"", "a torn frame"
        return messages

    def connect(
        self, nursery: trio.Nursery, server: trioroom.Server, path: str, subprotocol: str | None = None
    ) -> None:
        """Begin to be a connection, run in ``nursery``; `settle` when all that should has happened."""
        offer = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
        self._said.send_nowait(
            f"GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{offer}"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        nursery.start_soon(server._greeter.serve, self)  # no public way leads to a transport that is no stream

    def settle(self) -> None:
        """Forget what has been sent so far: the answer to the handshake, and a hello."""
        assert self.sends[0].startswith(b"HTTP/1.1 101 ")
        self.sends.clear()


@pytest.fixture
def make_recorder() -> type[Recorder]:
    """Peers whose every send can be looked at."""
    return Recorder
