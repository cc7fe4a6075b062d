"""Chat from the terminal: python chat_client.py ws://127.0.0.1:8000/ chat/lobby"""

import sys

import trio

import trioroom
from trioroom.client import Client, ClientRoom, Gap, Message


async def show_state(client: Client) -> None:
    async for state in client.states():
        if state.name == "waiting":
            print(f"not connected ({state.error}); again in {state.after:.1f} s")


async def show(room: ClientRoom) -> None:
    async for event in room.events():
        match event:
            case Message(data, sender):
                print(f"{sender}: {data}")
            case Gap(reason, lost):
                print(f"({lost or 'some'} messages are missing: {reason})")


async def main(url: str, name: str) -> None:
    async with trioroom.connect(url) as client, trio.open_nursery() as nursery:
        nursery.start_soon(show_state, client)
        async with client.join(name) as room:
            print(f"joined {room.name}")
            nursery.start_soon(show, room)
            # abandon_on_cancel: a thread that waits for a line cannot be woken.
            while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
                await room.publish(line.rstrip("\n"))
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
