"""A room at ``/all`` and an echo at ``/echo``, on trio-websocket: ``python trio_websocket_server.py PORT``."""

from __future__ import annotations

import sys

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

QUEUE = 64
"""Messages that wait for a member. Beyond that it misses some, as its room shall not wait for it."""

members: set[trio.MemorySendChannel[str | bytes]] = set()


async def handle(request: WebSocketRequest) -> None:
    """One connection."""
    connection = await request.accept()
    try:
        if request.path == "/echo":
            while True:
                await connection.send_message(await connection.get_message())
        else:
            await be_member(connection)
    except* ConnectionClosed:
        pass


async def be_member(connection: WebSocketConnection) -> None:
    """Say to all what it says."""
    outbox, waiting = trio.open_memory_channel[str | bytes](QUEUE)
    members.add(outbox)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, connection, waiting)
            while True:
                publish(await connection.get_message())
    finally:
        members.discard(outbox)


def publish(message: str | bytes) -> None:
    """Into the outboxes of all."""
    for outbox in members:
        try:
            outbox.send_nowait(message)
        except trio.WouldBlock:
            pass


async def write(connection: WebSocketConnection, waiting: trio.MemoryReceiveChannel[str | bytes]) -> None:
    """Send what waits for one member."""
    async for message in waiting:
        await connection.send_message(message)


async def main(port: int) -> None:
    """Serve until killed."""
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_websocket, handle, "127.0.0.1", port, None)
        print("serving", flush=True)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
