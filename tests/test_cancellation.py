"""Cancelling the server at any moment: no task, no socket stays, and whoever joined has left exactly once."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio
from trio.testing import MockClock

import trioroom
from trioroom.testing import cancel_at_step, open_peer, open_test_server, open_v1_peer


class Ledger:
    """Whose ``on_join`` began, and whose ``on_leave``."""

    def __init__(self) -> None:
        self.joined: Counter[trioroom.Member] = Counter()
        self.left: Counter[trioroom.Member] = Counter()


class Busy(trioroom.Room):
    """Awaits in every hook, so that there are many moments to be cancelled at."""

    ledger: Ledger

    async def on_open(self) -> None:
        self.nursery.start_soon(self.tick)
        await trio.lowlevel.checkpoint()

    async def tick(self) -> None:
        while True:
            await trio.sleep(0.01)
            await self.publish("tick")

    async def authorize(self, member: trioroom.Member) -> None:
        await trio.lowlevel.checkpoint()

    async def on_join(self, member: trioroom.Member) -> object:
        self.ledger.joined[member] += 1
        member.start_soon(self.watch, member)
        await trio.lowlevel.checkpoint()
        await self.publish("someone joins")
        return "state"

    async def watch(self, member: trioroom.Member) -> None:
        try:
            await trio.sleep_forever()
        finally:
            member.send("no longer watched")

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        await trio.lowlevel.checkpoint()
        if message.data == "out":
            member.leave("asked to")
        else:
            await self.publish(message.data)

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        if message.data == "for ever":
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return message.data

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        self.ledger.left[member] += 1
        await self.publish("someone left")

    async def on_close(self) -> None:
        await trio.lowlevel.checkpoint()


async def plain_guest(server: trioroom.Server, tcp: bool) -> None:
    """Join, say something, hear it, close."""
    async with open_peer(server, "/room/a", tcp=tcp) as peer:
        await peer.send("hello")
        while await peer.receive() != "hello":
            pass
        await peer.close()


async def guest_that_is_put_out(server: trioroom.Server, tcp: bool) -> None:
    async with open_peer(server, "/room/a", tcp=tcp) as peer:
        await peer.send("out")
        while True:
            await peer.receive()


async def guest_that_vanishes(server: trioroom.Server, tcp: bool) -> None:
    async with open_peer(server, "/room/b", tcp=tcp) as peer:
        await peer.receive()


async def v1_guest(server: trioroom.Server, tcp: bool) -> None:
    """All that v1 has, in two rooms."""
    async with open_v1_peer(server, tcp=tcp) as v1:
        await v1.request("auth", token="t")
        await v1.join("room/a")
        await v1.join("room/b")
        await v1.request("publish", room="room/a", data="hello")
        await v1.send({"type": "call", "id": "c", "room": "room/b", "data": "for ever"})
        await v1.request("call", room="room/a", data="echo")
        await v1.send({"type": "cancel", "id": "c"})
        await v1.receive_answer("c")
        await v1.request("leave", room="room/a")
        await v1.request("publish", room="room/b", data="out")
        while (await v1.receive())["type"] != "kicked":
            pass


GUESTS = (plain_guest, v1_guest, guest_that_is_put_out, guest_that_vanishes)


async def visit(server: trioroom.Server, tcp: bool) -> None:
    """Everyone comes and goes side by side; it is no failure when the server goes first."""

    async def run(guest: Callable[[trioroom.Server, bool], Awaitable[None]]) -> None:
        try:
            await guest(server, tcp)
        except (trioroom.ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass

    async with trio.open_nursery() as nursery:
        for guest in GUESTS:
            nursery.start_soon(run, guest)


@contextmanager
def nothing_is_left(step: int) -> Iterator[trioroom.App]:
    """An app, and afterwards a look at what is left of it."""
    ledger = Ledger()
    app = trioroom.App()
    app.route("room/{name}", type("Busy", (Busy,), {"ledger": ledger}))
    before = living_tasks(), open_descriptors()
    yield app
    assert (living_tasks(), open_descriptors()) == before, f"cancelled at step {step}"
    assert ledger.left == ledger.joined, f"cancelled at step {step}"
    assert set(ledger.joined.values()) <= {1}


def living_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def cancel_everything_at_every_step(tcp: bool) -> None:
    for step in itertools.count():
        with trio.fail_after(10), nothing_is_left(step) as app, cancel_at_step(step) as scope:
            async with open_test_server(app, tcp=tcp) as server:
                await visit(server, tcp)
        if not scope.cancelled_caught:
            break
    assert step > 100, "the scenario has become too short to tell anything"


async def test_everything_can_be_cancelled_at_any_step(autojump_clock: MockClock) -> None:
    await cancel_everything_at_every_step(tcp=False)


async def test_everything_can_be_cancelled_at_any_step_on_real_sockets() -> None:
    await cancel_everything_at_every_step(tcp=True)


async def test_server_can_be_cancelled_at_any_step_under_its_peers() -> None:
    async def visit_and_tell(server: trioroom.Server, visited: trio.Event) -> None:
        await visit(server, tcp=True)
        visited.set()

    for step in itertools.count():
        with trio.fail_after(5), nothing_is_left(step) as app:
            async with trio.open_nursery() as guests:
                with cancel_at_step(step) as scope:
                    async with open_test_server(app, tcp=True) as server:
                        visited = trio.Event()
                        guests.start_soon(visit_and_tell, server, visited)
                        await visited.wait()
        if not scope.cancelled_caught:
            break
    assert step > 100, "the scenario has become too short to tell anything"
