"""Several rooms on one connection, peers that take nothing at all, and the memory of the whole server."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from trioroom import Message, Overflow
from trioroom.testing import Peer, V1Peer, open_test_server

if TYPE_CHECKING:
    from tests._net.conftest import EventsUntilTheEnd, Greet, OpenPeer


class House:
    """An app whose rooms are named after their policies, but for one called ``chat``."""

    def __init__(self) -> None:
        self.rooms: dict[str, trioroom.Room] = {}
        self.left: list[str] = []
        self.app = trioroom.App()
        house = self

        class Hall(trioroom.Room):
            async def on_open(self) -> None:
                house.rooms[self.name] = self

            async def on_message(self, member: trioroom.Member, message: Message) -> None:
                pass

            async def on_leave(self, member: trioroom.Member, reason: str) -> None:
                house.left.append(reason)

        self.app.route("chat", Hall)
        for policy in Overflow:
            self.app.route(policy.value, type(policy.value, (Hall,), {"overflow": policy}))

    async def publish(self, room: str, *data: str) -> None:
        """Publish each and see it through."""
        for each in data:
            await self.rooms[room].publish(each)
            await wait_all_tasks_blocked()


@pytest.fixture
def house() -> House:
    return House()


async def closing(peer: V1Peer | Peer) -> trioroom.ConnectionClosed:
    """How the server closed, whatever came before."""
    while True:
        try:
            await peer.receive()
        except trioroom.ConnectionClosed as closed:
            return closed


# -- rooms beside each other -------------------------------------------------------------------------


@asynccontextmanager
async def open_narrow_v1(server: trioroom.Server, greet: Greet) -> AsyncIterator[V1Peer]:
    """As the fixture `open_narrow_peer`, for a peer that speaks v1."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        peer = V1Peer(await greet(ours, "/", ("Sec-WebSocket-Protocol: trioroom.v1.json",)), "trioroom.v1.json")
        peer.hello = await peer.receive()
        yield peer
        await trio.aclose_forcefully(ours)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "latest"])
async def test_room_that_drops_costs_neither_the_connection_nor_messages_of_another(
    house: House, greet: Greet, autojump_clock: MockClock, policy: str
) -> None:
    """Its messages alone fill the outbox to its bound; then come those of another room, a ping and answers."""
    settings = trioroom.Settings(max_outbox_messages=8, ping_interval=10, ping_timeout=9, close_timeout=1)
    async with open_test_server(house.app, settings) as server, open_narrow_v1(server, greet) as peer:
        await peer.join("chat")
        await peer.join(policy)
        await house.publish(policy, *map(str, range(11)))
        await house.publish("chat", "x", "y")
        for id in ("auth 1", "auth 2"):
            await trio.sleep(5)
            await peer.send({"type": "auth", "id": id, "token": "t"})  # as late as a pong may come
        await wait_all_tasks_blocked()
        received = []
        with trio.move_on_after(1):
            while True:
                received.append(await peer.receive())
        ticks = [5, "6", "7", "8", 2] if policy == "drop_newest" else [7, "8", "9", "10"]
        assert [each.get("lost") or each.get("data") or each["id"] for each in received] == [
            "0", *ticks, "x", "y", "auth 1", "auth 2",
        ]  # fmt: skip


async def test_room_that_may_not_drop_ends_the_connection_of_all(
    house: House, greet: Greet, autojump_clock: MockClock
) -> None:
    settings = trioroom.Settings(max_outbox_messages=8, ping_interval=math.inf, close_timeout=1)
    async with open_test_server(house.app, settings) as server, open_narrow_v1(server, greet) as peer:
        await peer.join("chat")
        await peer.join("drop_oldest")
        await house.publish("drop_oldest", *map(str, range(20)))
        await house.publish("chat", *map(str, range(9)))
        assert (await closing(peer)).code == 4108
        await wait_all_tasks_blocked()
        assert len(house.left) == 2


PATIENT = trioroom.Settings(write_timeout=30, close_timeout=3, leave_timeout=1, ping_interval=math.inf)


# -- a peer that takes nothing -----------------------------------------------------------------------


@pytest.mark.parametrize("policy", Overflow)
async def test_peer_that_takes_nothing_is_closed_however_much_it_says(
    house: House,
    open_narrow_peer: OpenPeer,
    events_until_the_end: EventsUntilTheEnd,
    autojump_clock: MockClock,
    policy: Overflow,
) -> None:
    """Over a stream nobody knows how much of a send went out that was cut off: nothing follows it."""
    async with open_test_server(house.app, PATIENT) as server, open_narrow_peer(server, f"/{policy.value}") as peer:
        await wait_all_tasks_blocked()
        begun = trio.current_time()
        await house.publish(policy.value, "0", "1", "2", "3")

        async def talk() -> None:
            while True:
                await peer.send("still here")
                await trio.sleep(1)

        with pytest.raises(trio.BrokenResourceError):
            await talk()
        assert trio.current_time() - begun == pytest.approx(30, abs=1)
        assert server.connection_count == 0
        assert await events_until_the_end(peer) in ([], [Message("0")])
    (reason,) = house.left
    assert reason.startswith("slow consumer: ")
    assert reason.endswith("nothing read for 30 s")


async def test_peer_that_takes_a_little_now_and_then_stays(
    house: House, open_narrow_peer: OpenPeer, autojump_clock: MockClock
) -> None:
    async with open_test_server(house.app, PATIENT) as server, open_narrow_peer(server, "/drop_oldest") as peer:
        await wait_all_tasks_blocked()
        for number in range(5):
            await house.publish("drop_oldest", str(number))
            await trio.sleep(29)
            assert await peer.receive() == str(number)
        assert server.connection_count == 1


# -- memory of the whole server ----------------------------------------------------------------------


async def test_fattest_of_the_slow_members_goes_when_the_budget_is_used_up(
    house: House, open_narrow_peer: OpenPeer, autojump_clock: MockClock
) -> None:
    settings = trioroom.Settings(max_queued_bytes=200_000, ping_interval=math.inf, close_timeout=3)
    async with (
        open_test_server(house.app, settings) as server,
        open_narrow_peer(server, "/disconnect") as first,
        open_narrow_peer(server, "/drop_oldest") as fattest,
        open_narrow_peer(server, "/latest") as third,
    ):
        await wait_all_tasks_blocked()
        sizes = {"disconnect": 20_000, "drop_oldest": 80_000, "latest": 50_000}
        for room, size in sizes.items():
            await house.publish(room, "first", "x" * size)
        assert server.statistics().dropped_queues == 0
        await house.publish("disconnect", "y" * 35_000)
        assert server.statistics().dropped_queues == 1
        closed = await closing(fattest)
        assert closed.code == 4108
        assert closed.reason.endswith("the most of all as max_queued_bytes ran out")
        assert [await first.receive() for _ in range(3)] == ["first", "x" * 20_000, "y" * 35_000]
        assert [await third.receive() for _ in range(2)] == ["first", "x" * 50_000]
        counted = {room: house.rooms[room].statistics().deliveries for room in sizes}
        assert [deliveries.dropped for deliveries in counted.values()] == [0, 1, 0]
        assert counted["drop_oldest"].slow_consumers == 1


async def test_peer_that_is_being_closed_gets_its_close_frame_though_memory_runs_out(
    house: House, open_narrow_peer: OpenPeer, autojump_clock: MockClock
) -> None:
    settings = trioroom.Settings(max_queued_bytes=100_000, ping_interval=math.inf, close_timeout=3)
    async with (
        open_test_server(house.app, settings) as server,
        open_narrow_peer(server, "/disconnect") as leaving,
        open_narrow_peer(server, "/latest") as other,
    ):
        await wait_all_tasks_blocked()
        await house.publish("disconnect", "first", "x" * 60_000)
        for member in house.rooms["disconnect"].members:
            member.leave("enough")
        await house.publish("latest", "first", "y" * 50_000)
        assert server.statistics().dropped_queues == 1
        assert await leaving.receive() == "first"
        with pytest.raises(trioroom.ConnectionClosed, match="1000: enough"):
            await leaving.receive()
        assert [await other.receive() for _ in range(2)] == ["first", "y" * 50_000]
