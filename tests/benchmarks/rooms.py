"""The server under measurement: broadcast rooms at ``/all`` and ``/chat/{name}``, and an echo at ``/echo``.

    python tests/benchmarks/rooms.py [--set NAME=VALUE ...] [--overflow POLICY] PORT

The benchmarks start it; by hand one sees what it says.
"""

from __future__ import annotations

import argparse
import os

import trio

import trioroom
from trioroom.cli.assignments import parse_settings


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
app.route("chat/{name}", All)
app.route("echo", Echo)


def set_overflow(policy: str) -> None:
    """What a full outbox does, if this version of trioroom leaves a choice; else it disconnects."""
    if (overflow := getattr(trioroom, "Overflow", None)) is not None:
        setattr(All, "overflow", overflow[policy.upper()])  # noqa: B010  # the type checker knows this version only
    elif policy != "disconnect":
        raise SystemExit(f"this version of trioroom has no overflow policy {policy!r}; use disconnect")


async def main(port: int, settings: trioroom.Settings) -> None:
    """Serve; with what the variable TRIOROOM_BACKPLANE names, if that is set."""
    async with trioroom.open_backplane(os.environ.get("TRIOROOM_BACKPLANE", "memory")) as backplane:
        await trioroom.serve(app, "127.0.0.1", port, backplane=backplane, settings=settings)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--overflow", default="disconnect")
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    set_overflow(arguments.overflow)
    trio.run(main, arguments.port, parse_settings(arguments.settings))
