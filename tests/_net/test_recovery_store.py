"""Recovery where the store has a word in it: epochs that go on, a server that lags behind, a room that still opens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

import trioroom
from tests._net.losing_store import LosingBackplane, Store
from tests._net.test_recovery import ROOM, Kept, app_of, assert_silent, join, messages, publish
from trioroom._wire.publication import encode_publication
from trioroom.backplane.room_channel import RoomChannel
from trioroom.testing import V1Peer, open_test_server, open_v1_peer


class Echo(Kept):
    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        await self.publish(message.data, exclude=member)


@asynccontextmanager
async def open_scene(store: Store) -> AsyncIterator[tuple[trioroom.App, V1Peer, V1Peer]]:
    """A server on ``store`` with a peer that is in the room and one that is not."""
    app, settings = app_of(Echo), trioroom.Settings(publish_timeout=5)
    async with (
        open_test_server(app, settings, backplane=LosingBackplane(store)) as server,
        open_v1_peer(server) as stays,
        open_v1_peer(server) as peer,
    ):
        await join(stays)
        yield app, stays, peer


async def test_member_excluded_from_the_first_message_of_an_epoch_learns_of_it_too(autojump_clock: MockClock) -> None:
    store = Store()
    async with open_scene(store) as (app, _, peer):
        await join(peer)
        store.restart(0)
        await peer.request("publish", room=ROOM, data="own")
        told = await peer.receive()
        assert told == {"type": "position", "room": ROOM, "position": {"epoch": "1", "offset": 0}}
        await peer.request("leave", room=ROOM)
        await publish(app, "missed")
        assert (await join(peer, told["position"]))["recovered"]
        assert await messages(peer, 1) == [(2, "missed")]


async def test_position_that_this_server_has_not_reached_yet_is_waited_for(autojump_clock: MockClock) -> None:
    store = Store()
    async with open_scene(store) as (_, stays, peer):
        for number in range(1, 4):  # another server has delivered them; ours never hears of them
            store.deliveries = 0
            payload = encode_publication(number)
            position = await store.publish(ROOM, payload, Kept.history)
        answer = await join(peer, {"epoch": position.epoch, "offset": 2})
        assert (answer["recovered"], answer["position"]["offset"]) == (True, 2)
        assert await messages(peer, 1) == [(3, 3)]
        await assert_silent(peer)
        assert await messages(stays, 3) == [(1, 1), (2, 2), (3, 3)]


async def test_server_that_does_not_catch_up_asks_to_come_later(autojump_clock: MockClock) -> None:
    store = Store()
    async with open_scene(store) as (_, stays, peer):
        store.deliveries = 0
        position = await store.publish(ROOM, encode_publication("far"), Kept.history)

        async def go_down() -> None:
            store.before_read = drop_out  # asked where the history ends; what is missing it does not give

        async def drop_out() -> None:
            store.is_up = False

        store.before_read = go_down
        began = trio.current_time()
        answer = await peer.request("join", room=ROOM, position={"epoch": position.epoch, "offset": 1})
        assert (answer["type"], answer["code"], answer["retry"]) == ("error", "unavailable", True)
        assert trio.current_time() - began == pytest.approx(5)
        store.is_up = True
        assert await messages(stays, 1) == [(1, "far")]


async def test_publication_may_go_out_while_the_room_still_opens(autojump_clock: MockClock) -> None:
    class SlowStore(Store):
        @asynccontextmanager
        async def subscribe(self, room: str, channel: RoomChannel) -> AsyncIterator[None]:
            await trio.sleep(1)
            async with super().subscribe(room, channel):
                yield

    app = app_of()
    async with (
        open_test_server(app, backplane=LosingBackplane(SlowStore())) as server,
        open_v1_peer(server) as peer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(join, peer)
        await trio.sleep(0.5)
        await publish(app, "early")
        await trio.sleep(1)
        await publish(app, "late")
        assert await messages(peer, 1) == [(2, "late")]
