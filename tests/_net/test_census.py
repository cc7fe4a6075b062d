"""The walk over rooms and slow connections: what it finds, and that it keeps nobody waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

import trioroom
from trioroom._core.overflow import Overflow
from trioroom._core.snapshot import MAX_ROWS, BusyRoom
from trioroom._net.census import Census
from trioroom.testing import open_peer


class Dropping(trioroom.Room):
    overflow = Overflow.DROP_OLDEST


def make_app() -> trioroom.App:
    app = trioroom.App()
    app.route("chat/{name}", trioroom.Room)
    app.route("game/{name}", Dropping)
    return app


async def census_of(server: trioroom.Server) -> Census:
    census = Census(server._hub)
    await census.run()
    return census


@asynccontextmanager
async def open_rooms(server: trioroom.Server, *members: int) -> AsyncIterator[None]:
    """Room number n has as many members as is said."""
    async with AsyncExitStack() as stack:
        for number, count in enumerate(members):
            for _ in range(count):
                await stack.enter_async_context(open_peer(server, f"/chat/{number:04}"))
        await wait_all_tasks_blocked()  # until all are members
        yield


async def test_rooms_and_members_are_counted() -> None:
    async with trioroom.open_server(app := make_app(), port=0) as server, open_rooms(server, 3, 1, 2):
        await app.publish("chat/0002", "hello")
        await wait_all_tasks_blocked()
        census = await census_of(server)
        assert census.tallies[Overflow.DISCONNECT].offered == 2
        assert census.busy_rooms() == [
            BusyRoom("chat/0000", 3, 0, 0),
            BusyRoom("chat/0002", 2, 0, 2),
            BusyRoom("chat/0001", 1, 0, 0),
        ]


async def test_room_that_is_busy_is_told_however_many_are_larger() -> None:
    async with trioroom.open_server(app := make_app(), port=0) as server, open_rooms(server, 1, *[2] * MAX_ROWS):
        await app.publish("chat/0000", "hello")
        await wait_all_tasks_blocked()
        rooms = (await census_of(server)).busy_rooms()
        assert len(rooms) == MAX_ROWS
        assert BusyRoom("chat/0000", 1, 0, 1) in rooms


async def test_counts_of_rooms_that_close_go_on() -> None:
    async with trioroom.open_server(app := make_app(), port=0) as server:
        async with open_rooms(server, 2):
            await app.publish("chat/0000", "hello")
            await wait_all_tasks_blocked()
            while_open = Census(server._hub)
        await wait_all_tasks_blocked()
        assert not server._hub.rooms
        await while_open.run()  # it had seen the room before that was closed
        assert while_open.tallies[Overflow.DISCONNECT].offered == 2
        assert (await census_of(server)).tallies[Overflow.DISCONNECT].offered == 2


async def test_connections_with_most_to_take_are_told() -> None:
    async with trioroom.open_server(app := make_app(), port=0) as server, trio.open_nursery() as nursery:
        for room in ("chat/a", "game/a"):
            await _open_stalled(nursery, server, room)
        async with open_peer(server, "/chat/a") as reads:
            await wait_all_tasks_blocked()
            for size in (1, 5_000, 5_000):  # the first one is in the writer's hand, and counts as sent
                await app.publish("chat/a", "x" * size)
                await app.publish("game/a", "x" * 2 * size)
                assert await reads.receive() == "x" * size
                await wait_all_tasks_blocked()
            slow = (await census_of(server)).slow_connections()
            ids = {room: server._hub.rooms[room].snapshot()[0].id for room in ("chat/a", "game/a")}
            assert [(each.id, each.messages) for each in slow] == [(ids["game/a"], 2), (ids["chat/a"], 2)]
            assert slow[0].queued_bytes > 20_000 > slow[1].queued_bytes > 10_000
        nursery.cancel_scope.cancel()


async def _open_stalled(nursery: trio.Nursery, server: trioroom.Server, room: str) -> None:
    """A member whose stream takes nothing after the handshake."""
    ours, theirs = memory_stream_pair()
    await ours.send_all(
        f"GET /{room} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    nursery.start_soon(server.serve_stream, theirs)
    await ours.receive_some()
    await wait_all_tasks_blocked()
    theirs.send_stream.send_all_hook = trio.sleep_forever


async def test_nobody_is_slow_when_all_has_been_sent() -> None:
    async with trioroom.open_server(app := make_app(), port=0) as server, open_peer(server, "/chat/a") as peer:
        await wait_all_tasks_blocked()  # until it is a member
        await app.publish("chat/a", "hello")
        assert await peer.receive() == "hello"
        await wait_all_tasks_blocked()
        assert server._hub.limits.budget.queues() == []
        assert (await census_of(server)).slow_connections() == []


async def test_others_run_between_slices() -> None:
    async with trioroom.open_server(make_app(), port=0) as server, open_rooms(server, *[1] * 600):
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            census = await census_of(server)
            nursery.cancel_scope.cancel()
        assert turns >= 1
        assert len(server._hub.rooms) == 600
        assert 0 < census.cost < 1
