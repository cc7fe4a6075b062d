"""Members that have gone leave nothing behind: each round ends with as many objects of every type as the one before."""

from __future__ import annotations

import gc
from collections import Counter

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trioroom
from trioroom.testing import open_peer, open_test_server, open_v1_peer

MEMBERS, ROUNDS = 50, 3
UNCOUNTED = {"CancelScope", "CancelReason", "tuple", "Counter"}
"""Trio's heap keeps up to a thousand scopes with deadlines that are over, and a count is an object itself."""


class Talk(trioroom.Room):
    """Has a task for each member and one of its own."""

    async def on_open(self) -> None:
        self.nursery.start_soon(trio.sleep_forever)

    async def on_join(self, member: trioroom.Member) -> object:
        member.start_soon(trio.sleep_forever)
        return "welcome"


class Kept(Talk):
    """Knows who is there, and keeps so few messages that they are soon as many as they will ever be."""

    history = trioroom.History(size=3)
    presence = trioroom.Presence(grace=0)


def objects() -> Counter[str]:
    """What the collector tracks, by type."""
    gc.collect()
    found = Counter(type(each).__qualname__ for each in gc.get_objects())
    return Counter({kind: count for kind, count in found.items() if kind not in UNCOUNTED})


async def come_and_go(server: trioroom.Server, path: str, *, tcp: bool) -> None:
    """Members come, by turns plain ones and some that speak v1, say something when all are there, and go."""

    async def take_part(room: str, v1: bool) -> None:
        if v1:
            async with open_v1_peer(server, tcp=tcp) as peer:
                await peer.join(room)
                await all_there()
                await peer.request("publish", room=room, data="hello")
        else:
            async with open_peer(server, f"/{room}", tcp=tcp) as plain:
                assert await plain.receive() == "welcome"
                await all_there()
                await plain.send("hello")

    async def all_there() -> None:
        there.append(None)
        if len(there) == MEMBERS:
            complete.set()
        await complete.wait()

    there: list[None] = []
    complete = trio.Event()
    async with trio.open_nursery() as nursery:
        for number in range(MEMBERS):
            nursery.start_soon(take_part, path.format(number=number), number % 2 == 0)
    await server._hub.wait_empty()
    await wait_all_tasks_blocked()
    assert server.statistics().rooms == 0


@pytest.mark.untraced
@pytest.mark.parametrize("tcp", [False, True], ids=["memory", "tcp"])
@pytest.mark.parametrize("path", ["talk/one", "talk/{number}", "kept/one"])
async def test_members_and_rooms_that_have_gone_leave_nothing_behind(path: str, tcp: bool) -> None:
    app = trioroom.App()
    app.route("talk/{name}", Talk)
    app.route("kept/{name}", Kept)
    async with open_test_server(app, timeout=60, tcp=tcp) as server:
        counts = []
        for _ in range(1 + ROUNDS):  # the first one fills caches
            await come_and_go(server, path, tcp=tcp)
            counts.append(objects())
        assert dict(counts[-1] - counts[1]) == {}
