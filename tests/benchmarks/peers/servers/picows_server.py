"""A room at ``/all`` and an echo at ``/echo``, on picows and uvloop: ``python picows_server.py PORT``."""

from __future__ import annotations

import sys

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

members: set[WSTransport] = set()


class Echo(WSListener):  # type: ignore[misc]  # without types, see pyproject.toml
    """Each gets its own."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Straight back."""
        if frame.msg_type == WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, frame.get_payload_as_memoryview())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()


class Room(WSListener):  # type: ignore[misc]  # as above
    """Everybody gets everything."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        """One more."""
        members.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """One less."""
        members.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """To all."""
        if frame.msg_type == WSMsgType.TEXT:
            message = frame.get_payload_as_bytes()
            for member in list(members):
                member.send(WSMsgType.TEXT, message)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()


def listen(request: WSUpgradeRequest) -> WSListener:
    """Who listens to a new connection."""
    return Echo() if request.path == b"/echo" else Room()


async def main(port: int) -> None:
    """Serve until killed."""
    server = await ws_create_server(listen, "127.0.0.1", port)
    print("serving", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
