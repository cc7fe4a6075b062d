"""Rooms in a server that trio-websocket runs: /time is its own, all else goes to the rooms."""

import time

import trio
from chat import app
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

import trioroom

SETTINGS = trioroom.Settings(allowed_origins=("https://example.org",))  # whence browsers may come


async def main(port: int = 8001) -> None:
    async with trioroom.open_server(app, port=0, settings=SETTINGS) as rooms:

        async def handle(request: WebSocketRequest) -> None:
            if request.path == "/time":
                await tell_time(request)
            else:
                await rooms.serve_websocket_request(request)

        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_websocket, handle, "127.0.0.1", port, None)
            print(f"ws://127.0.0.1:{server.port}/chat/lobby and ws://127.0.0.1:{rooms.port}/chat/lobby are one room")


async def tell_time(request: WebSocketRequest) -> None:
    connection = await request.accept()
    try:
        while True:
            await connection.send_message(time.ctime())
            await trio.sleep(1)
    except ConnectionClosed:
        pass


if __name__ == "__main__":
    trio.run(main)
