"""What a server says of itself, and how often it looks."""

from __future__ import annotations

import os
import socket

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from trioroom._net.census import Census
from trioroom._net.snapshot import Snapshots
from trioroom.testing import open_peer


def make_app() -> trioroom.App:
    app = trioroom.App()
    app.route("chat/{name}", trioroom.Room)
    return app


def snapshots_of(server: trioroom.Server) -> Snapshots:
    return Snapshots(server._overview, "node-1")


async def test_server_tells_how_it_does() -> None:
    settings = trioroom.Settings(max_connections=7, max_queued_bytes=5_000_000.0)
    async with trioroom.open_server(app := make_app(), port=0, settings=settings) as server:
        snapshots = snapshots_of(server)
        async with open_peer(server, "/chat/a"), open_peer(server, "/chat/b") as peer:
            await wait_all_tasks_blocked()
            await app.publish("chat/b", "hello")
            assert await peer.receive() == "hello"
            await wait_all_tasks_blocked()
            snapshot = await snapshots.take()
    assert (snapshot.connections, snapshot.rooms, snapshot.members) == (2, 2, 2)
    assert snapshot.deliveries["disconnect"].offered == snapshot.deliveries["disconnect"].sent == 1
    assert [room.name for room in snapshot.busy_rooms] == ["chat/a", "chat/b"]
    assert snapshot.slow_connections == []
    assert (snapshot.max_connections, snapshot.max_queued_bytes) == (7, 5e6)
    assert snapshot.label == f"{socket.gethostname()}:{os.getpid()}"
    assert snapshot.version == trioroom.__version__
    assert snapshot.backplane_ready
    assert not snapshot.draining
    assert snapshot.cpu_seconds > 0
    assert (snapshot.resident_bytes or 0) > 1 << 20
    assert 3 < (snapshot.open_files or 0) < (snapshot.max_open_files or 0)


async def test_messages_and_stalls_are_told(autojump_clock: MockClock) -> None:
    async with trioroom.open_server(make_app(), port=0) as server:
        snapshots = snapshots_of(server)
        async with open_peer(server, "/chat/a") as peer:
            await wait_all_tasks_blocked()
            for _ in range(3):
                await peer.send("hello")
            await wait_all_tasks_blocked()
            autojump_clock.jump(0.7)  # as if something had held up the loop
            await trio.sleep(0.1)
            snapshot = await snapshots.take()
            assert snapshot.messages_received == 3
            assert 0.4 < snapshot.loop_lag < 0.8
            await trio.sleep(10)
            assert (await snapshots.take()).loop_lag < 0.1


async def test_what_has_no_bound_says_so() -> None:
    settings = trioroom.Settings(max_queued_bytes=float("inf"))
    async with trioroom.open_server(make_app(), port=0, settings=settings) as server:
        assert (await snapshots_of(server).take()).max_queued_bytes is None


async def test_those_who_ask_together_get_the_same_and_a_second_later_another(autojump_clock: MockClock) -> None:
    async with trioroom.open_server(make_app(), port=0) as server:
        snapshots = snapshots_of(server)
        taken = []

        async def take() -> None:
            taken.append(await snapshots.take())

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(take)
        await trio.sleep(0.5)
        await take()
        assert len({id(each) for each in taken}) == 1
        await trio.sleep(0.5)
        await take()
        assert taken[-1] is not taken[0]
        assert taken[-1].uptime == pytest.approx(1.0)


async def test_costly_walk_is_taken_less_often(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    async def run_for_half_a_second(census: Census) -> None:
        await trio.lowlevel.checkpoint()
        census.cost = 0.5  # some 500,000 rooms

    monkeypatch.setattr(Census, "run", run_for_half_a_second)
    async with trioroom.open_server(make_app(), port=0) as server:
        snapshots = snapshots_of(server)
        first = await snapshots.take()
        await trio.sleep(9.9)
        assert await snapshots.take() is first
        await trio.sleep(0.2)
        assert await snapshots.take() is not first


async def test_one_who_gives_up_leaves_the_others_their_answer() -> None:
    async with trioroom.open_server(make_app(), port=0) as server:
        snapshots = snapshots_of(server)
        with trio.CancelScope() as scope:
            scope.cancel()
            await snapshots.take()
        assert (await snapshots.take()).connections == 0
