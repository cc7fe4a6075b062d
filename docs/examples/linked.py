"""One of several servers that act as one - python linked.py redis://127.0.0.1"""

import sys

import trio
from chat import app

import trioroom


async def main(url: str) -> None:
    async with trioroom.open_backplane(url) as backplane:
        async with trioroom.open_server(app, host="127.0.0.1", port=0, backplane=backplane) as server:
            print(f"ws://127.0.0.1:{server.port}/chat/lobby")
            await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
