"""A server in a process of its own, to be stopped and killed: ``python -m tests.backplane.control_node URL``.

Prints its port once it serves.
"""

from __future__ import annotations

import sys

import trio

import trioroom
from trioroom.backplane.open import open_backplane


class Club(trioroom.Room):
    """Who comes is who its query says."""

    async def authorize(self, member: trioroom.Member) -> None:
        """Anybody may."""
        member.user = member.request.query

    async def on_join(self, member: trioroom.Member) -> object:
        """Says that it is in."""
        return "in"


def make_app() -> trioroom.App:
    """What all servers of the tests run."""
    app = trioroom.App()
    app.route("club/{name}", Club)
    return app


async def main(url: str) -> None:
    """Until killed."""
    async with (
        open_backplane(url) as backplane,
        trioroom.open_server(make_app(), port=0, backplane=backplane) as server,
    ):
        print(server.port, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
