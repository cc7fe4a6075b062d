import signal

import trio
from chat import app

import trioroom
from trioroom.debug import dump_tasks


async def dump_on_signal() -> None:
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        async for _ in signals:
            await dump_tasks()


async def main(port: int = 8000) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dump_on_signal)
        server = await nursery.start(trioroom.serve, app, "127.0.0.1", port)
        print(f"serving ws://127.0.0.1:{server.port}/chat/lobby")


if __name__ == "__main__":
    trio.run(main)
