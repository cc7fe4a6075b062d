"""The server under measurement: a broadcast room at ``/all`` and an echo at ``/echo``, as its peers have."""

from __future__ import annotations

import os
import sys

import trio

import trioroom


class All(trioroom.Room):
    """Everybody gets everything."""

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        """Back to the sender too, which is how the load generator knows that a round is over."""
        await self.publish(message.data)


class Echo(trioroom.Room):
    """Each gets its own."""

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        """Straight back."""
        member.send(message.data)


app = trioroom.App()
app.route("all", All)
app.route("echo", Echo)


async def main(port: int) -> None:
    """Serve; with what the variable TRIOROOM_BACKPLANE names, if that is set."""
    async with trioroom.open_backplane(os.environ.get("TRIOROOM_BACKPLANE", "memory")) as backplane:
        await trioroom.serve(app, "127.0.0.1", port, backplane=backplane)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
