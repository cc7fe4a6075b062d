"""The server under test: one room that sends every message back to the member it came from."""

from __future__ import annotations

import argparse
import math

import trio

import trioroom

MEBIBYTE = 1 << 20
SETTINGS = trioroom.Settings(
    max_message_bytes=32 * MEBIBYTE,  # section 9 sends 16 MiB
    max_fragments=MEBIBYTE,  # and 4 MiB in frames of 64 bytes
    max_outbox_bytes=256 * MEBIBYTE,  # echoes of a client that writes first and reads later
    max_outbox_messages=MEBIBYTE,
    ping_interval=math.inf,  # a case may count the frames it gets
    compression=True,
)


class Echo(trioroom.Room):
    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        member.send(message.data)


def make_app() -> trioroom.App:
    app = trioroom.App()
    app.route("echo", Echo)
    return app


async def main(port: int) -> None:
    async with trioroom.open_server(make_app(), port=port, settings=SETTINGS) as server:
        print(server.port, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one; the first line printed tells which")
    trio.run(main, parser.parse_args().port)
