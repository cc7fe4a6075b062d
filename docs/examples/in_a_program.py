import trio
from chat import app

import trioroom


async def main() -> None:
    async with trioroom.open_server(app, host="127.0.0.1", port=0) as server:
        print(f"ws://127.0.0.1:{server.port}/chat/lobby")
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
