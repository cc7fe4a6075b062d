"""Talk in a room from the terminal: python plain_client.py ws://127.0.0.1:8000/chat/lobby"""

import sys

import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, open_websocket_url


async def show(connection: WebSocketConnection, done: trio.CancelScope) -> None:
    try:
        while True:
            print(await connection.get_message())
    except ConnectionClosed as closed:
        print(closed)
        done.cancel()


async def main(url: str) -> None:
    async with open_websocket_url(url) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(show, connection, nursery.cancel_scope)
        # abandon_on_cancel: a thread that waits for a line cannot be woken when the server closes.
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            await connection.send_message(line.rstrip("\n"))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    try:
        trio.run(main, sys.argv[1])
    except HandshakeError as error:  # no server there, or no such room
        sys.exit(f"not connected: {error.__cause__ or error!r}")
