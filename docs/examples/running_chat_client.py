import sys

import trio

import trioroom
from trioroom.client import Client, ClientRoom, Gap, Message, PresenceDiff


async def listen(room: ClientRoom) -> None:
    async for event in room.events():
        match event:
            case Message(data={"name": name, "text": text}):
                print(f"{name}: {text}")
            case Gap():
                print("... something may be missing here ...")
            case PresenceDiff():
                print(f"* here: {', '.join(room.present)}")


async def tell(client: Client) -> None:
    async for state in client.states():
        if state.name != "connecting":
            print(f"* {state.name}")


async def main(url: str, name: str) -> None:
    async with trioroom.connect(url, token=name) as client, trio.open_nursery() as nursery:
        nursery.start_soon(tell, client)
        async with client.join("chat/lobby", presence=True) as room:
            nursery.start_soon(listen, room)
            async for line in trio.wrap_file(sys.stdin):
                await room.publish(line.rstrip())
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
