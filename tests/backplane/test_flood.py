"""A flood by one member becomes backpressure on that member, whatever the backplane: nobody misses anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from tests.backplane.redis.servers import binaries, open_redis_server
from tests.conftest import app_of, close_code
from trioroom._net.fanout import FanOut, _Pass
from trioroom.backplane.base import Backplane
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import Peer, V1Peer, open_peer, open_test_server, open_v1_peer

DEADLINE = 20.0  # of a test that runs on real sockets
SIZE = 8  # publications in a room's channel


class Floodable(trioroom.Room):
    """Each message goes to all; one that is a number becomes so many, all at once."""

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        if not str(message.data).isdigit():
            return await self.publish(message.data)
        async with trio.open_nursery() as nursery:
            for number in range(int(str(message.data))):
                nursery.start_soon(self.publish, number)


@pytest.fixture(params=["memory", pytest.param("valkey", marks=pytest.mark.redis)])
async def backplane(request: pytest.FixtureRequest) -> AsyncIterator[Backplane]:
    if request.param == "memory":
        yield MemoryBackplane()
        return
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_redis_server(binaries()["valkey"]))
        yield await stack.enter_async_context(trioroom.open_backplane(server.url))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> trio.Event:
    """The fan-out of room/a comes to a stop at its first batch, until this event."""
    released = trio.Event()
    run = FanOut._pass

    async def hold(self: FanOut, batch: _Pass) -> None:
        if self._room.name == "room/a":
            await released.wait()
        await run(self, batch)

    monkeypatch.setattr(FanOut, "_pass", hold)
    return released


@asynccontextmanager
async def joined(server: trioroom.Server, room: str) -> AsyncIterator[V1Peer]:
    async with open_v1_peer(server) as peer:
        await peer.join(room)
        yield peer


async def hear(peer: V1Peer, count: int) -> list[object]:
    """The data of so many messages; anything else, a gap say, fails."""
    heard: list[object] = []
    while len(heard) < count:
        envelope = await peer.receive()
        assert envelope["type"] == "message", envelope
        heard.append(envelope["data"])
    return heard


@pytest.mark.untraced
async def test_thousands_at_once_reach_all_without_a_gap(backplane: Backplane) -> None:
    count, settings = 5_000, trioroom.Settings(max_outbox_messages=10_000)
    with trio.fail_after(DEADLINE):
        async with (
            open_test_server(app_of(Floodable), settings, backplane=backplane) as server,
            joined(server, "room/a") as watcher,
            open_peer(server, "/room/a") as flooder,
        ):
            await flooder.send(str(count))
            assert sorted(await hear(watcher, count)) == list(range(count))  # type: ignore[type-var]  # numbers


@pytest.mark.untraced
async def test_flood_is_held_up_in_the_sockets_of_who_floods(backplane: Backplane, held: trio.Event) -> None:
    count, size = 400, 60_000  # 24 MB: more than the kernel takes
    settings = trioroom.Settings(room_channel_size=SIZE, max_outbox_bytes=1 << 26)
    sent = 0

    async def flood(flooder: Peer) -> None:
        nonlocal sent
        for number in range(count):
            await flooder.send(f"{number} ".ljust(size))
            sent += 1

    with trio.fail_after(DEADLINE):
        async with (
            open_test_server(app_of(Floodable), settings, backplane=backplane, tcp=True) as server,
            joined(server, "room/a") as watcher,
            joined(server, "room/b") as elsewhere,
            open_peer(server, "/room/a", tcp=True) as flooder,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(flood, flooder)
            before = -1
            while sent > before:
                before = sent
                await trio.sleep(0.3)  # the kernel's part takes its time
            assert sent < count
            channel = server._hub.rooms["room/a"].channel
            assert 0 < len(channel) <= SIZE / 2
            assert server.statistics().queued_bytes == channel.queued_bytes < SIZE / 2 * (size + 100)
            await elsewhere.send({"type": "publish", "room": "room/b", "data": "b goes on"})
            assert await hear(elsewhere, 1) == ["b goes on"]
            held.set()
            assert [int(str(text)) for text in await hear(watcher, count)] == list(range(count))
            assert channel.queued_bytes == 0


async def test_publisher_is_told_when_the_room_stays_behind(held: trio.Event, autojump_clock: MockClock) -> None:
    settings = trioroom.Settings(room_channel_size=SIZE, publish_timeout=5)
    app = app_of(Floodable)
    async with (
        open_test_server(app, settings) as server,
        joined(server, "room/a") as v1,
        open_peer(server, "/room/a") as plain,
    ):
        await v1.request("publish", room="room/a", data="held")
        await wait_all_tasks_blocked()
        for _ in range(SIZE // 2):
            await app.publish("room/a", "in the channel")
        with pytest.raises(
            trioroom.BackplaneUnavailable, match=r"room 'room/a' has been behind for publish_timeout=5 s"
        ):
            await app.publish("room/a", "from outside")
        answer = await v1.request("publish", room="room/a", data="from a member")
        assert (answer["code"], answer["retry"]) == ("unavailable", True)
        await plain.send("from a plain member")
        with trio.fail_after(6):
            assert await close_code(plain) == 1013
        held.set()
        assert await hear(v1, 1 + SIZE // 2) == ["held", *["in the channel"] * (SIZE // 2)]


async def test_publishers_that_wait_go_on_when_their_room_ends(held: trio.Event, autojump_clock: MockClock) -> None:
    app = app_of(Floodable)
    settings = trioroom.Settings(room_channel_size=2)
    async with open_test_server(app, settings) as server, trio.open_nursery() as nursery:
        async with joined(server, "room/a"):
            for _ in range(5):
                nursery.start_soon(app.publish, "room/a", "x")
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 3  # one is with the fan-out, one in the channel
        await wait_all_tasks_blocked()
        assert not nursery.child_tasks
        assert server.statistics().queued_bytes == 0
