"""Members come back with a position: they get all they missed and then what is live, or are told that they cannot."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import V1Peer, open_test_server, open_v1_peer
from trioroom.testing.cancellation import cancel_at_step
from trioroom.testing.v1_peer import Envelope

ROOM = "room/a"


class Kept(trioroom.Room):
    history = trioroom.History(size=10, ttl=60)


class Plain(trioroom.Room):
    pass


def app_of(room_class: type[trioroom.Room] = Kept) -> trioroom.App:
    app = trioroom.App()
    app.route("room/{name}", room_class)
    app.route("plain/{name}", Plain)
    return app


@asynccontextmanager
async def open_scene(
    room_class: type[trioroom.Room] = Kept, settings: trioroom.Settings | None = None
) -> AsyncIterator[tuple[trioroom.App, trioroom.Server]]:
    app = app_of(room_class)
    async with open_test_server(app, settings) as server:
        yield app, server


async def publish(app: trioroom.App, *data: Any) -> None:
    for each in data:
        await app.publish(ROOM, each)


async def join(peer: V1Peer, position: object = None) -> Envelope:
    answer = await peer.request("join", room=ROOM, position=position)
    assert answer["type"] == "ok", answer
    return answer


async def messages(peer: V1Peer, count: int) -> list[tuple[int, object]]:
    """Offsets and data of the next ones; anything else fails."""
    got = []
    for _ in range(count):
        envelope = await peer.receive()
        assert envelope["type"] == "message", envelope
        got.append((envelope["offset"], envelope["data"]))
    return got


async def assert_silent(peer: V1Peer) -> None:
    with trio.move_on_after(1):
        pytest.fail(f"nothing was to come, but {await peer.receive()}")


@pytest.mark.parametrize("subprotocol", ["trioroom.v1.json", "trioroom.v1.msgpack"])
async def test_what_was_missed_comes_once_and_in_order_before_what_is_live(
    subprotocol: str, autojump_clock: MockClock
) -> None:
    async with open_scene() as (app, server), open_v1_peer(server) as stays:
        await join(stays)
        async with open_v1_peer(server, subprotocol=subprotocol) as away:
            position = (await join(away))["position"]
            await publish(app, "seen")
            [(offset, _)] = await messages(away, 1)
        await publish(app, "missed 1", b"missed 2")
        async with open_v1_peer(server, subprotocol=subprotocol) as back:
            answer = await join(back, {"epoch": position["epoch"], "offset": offset})
            assert (answer["recovered"], answer["position"]["offset"]) == (True, 1)
            await publish(app, "live")
            missed = b"missed 2" if subprotocol.endswith("msgpack") else "bWlzc2VkIDI="
            assert await messages(back, 3) == [(2, "missed 1"), (3, missed), (4, "live")]
            await assert_silent(back)


async def test_history_outlives_the_room(autojump_clock: MockClock) -> None:
    async with open_scene() as (app, server):
        await publish(app, "one", "two")
        async with open_v1_peer(server) as peer:
            position = (await join(peer))["position"]
            assert position["offset"] == 2
        await wait_all_tasks_blocked()
        await publish(app, "three")
        async with open_v1_peer(server) as peer:
            assert (await join(peer, {**position, "offset": 1}))["recovered"]
            assert await messages(peer, 2) == [(2, "two"), (3, "three")]


@pytest.mark.parametrize("offset", [-1, 1, 13])
async def test_position_that_the_history_does_not_hold_is_not_recovered(offset: int, autojump_clock: MockClock) -> None:
    async with open_scene() as (app, server), open_v1_peer(server) as peer:
        await publish(app, *range(12))  # two more than are kept
        epoch = (await join(peer))["position"]["epoch"]
        await peer.request("leave", room=ROOM)
        answer = await join(peer, {"epoch": epoch, "offset": offset})
        assert (answer["recovered"], answer["position"]["offset"]) == (False, 12)
        await publish(app, "live")
        assert await messages(peer, 1) == [(13, "live")]
        await assert_silent(peer)


async def test_oldest_position_that_can_be_recovered_is(autojump_clock: MockClock) -> None:
    async with open_scene() as (app, server), open_v1_peer(server) as peer:
        await publish(app, *range(12))
        epoch = (await join(peer))["position"]["epoch"]
        await peer.request("leave", room=ROOM)
        assert (await join(peer, {"epoch": epoch, "offset": 2}))["recovered"]
        assert [offset for offset, _ in await messages(peer, 10)] == list(range(3, 13))


async def test_another_epoch_is_not_recovered_and_what_is_too_old_neither(autojump_clock: MockClock) -> None:
    settings = trioroom.Settings(ping_interval=math.inf)
    async with (
        open_scene(settings=settings) as (app, server),
        open_v1_peer(server) as peer,
        open_v1_peer(server) as other,
    ):
        position = (await join(peer))["position"]
        assert not (await join(other, {"epoch": "another", "offset": 0}))["recovered"]
        await other.request("leave", room=ROOM)
        await publish(app, "one")
        await trio.sleep(61)
        assert not (await join(other, position))["recovered"]


async def test_room_without_history_recovers_nothing_and_keeps_its_words(autojump_clock: MockClock) -> None:
    async with open_scene() as (app, server), open_v1_peer(server) as peer:
        answer = await peer.request("join", room="plain/a", position={"epoch": "e", "offset": 1})
        assert answer == {"type": "ok", "id": 1, "room": "plain/a", "recovered": False}
        await app.publish("plain/a", "x")
        assert await peer.receive() == {"type": "message", "room": "plain/a", "data": "x"}
        answer = await peer.request("history", room="plain/a")
        assert (answer["code"], answer["message"]) == ("unsupported", "room 'plain/a' keeps no history")
        answer = await peer.request("history", room=ROOM)
        assert answer["code"] == "not_joined"


async def test_more_than_half_an_outbox_is_not_recovered_in_part(autojump_clock: MockClock) -> None:
    settings = trioroom.Settings(max_outbox_messages=6, close_timeout=1.0)
    async with open_scene(settings=settings) as (app, server), open_v1_peer(server) as peer:
        position = (await join(peer))["position"]
        for number in range(4):
            await publish(app, number)
            await messages(peer, 1)
        for offset, recovered in ((0, False), (1, True)):
            async with open_v1_peer(server) as back:
                assert (await join(back, {**position, "offset": offset}))["recovered"] is recovered


async def test_state_goes_before_what_was_missed_and_live_messages_wait_for_both(autojump_clock: MockClock) -> None:
    class Slow(Kept):
        async def on_join(self, member: trioroom.Member) -> object:
            await trio.sleep(1)
            return "state"

    async with open_scene(Slow) as (app, server), open_v1_peer(server) as peer:
        position = (await join(peer))["position"]
        await publish(app, "missed")
        async with open_v1_peer(server) as back, trio.open_nursery() as nursery:

            async def come_back() -> None:
                answer = await join(back, position)
                assert (answer["state"], answer["recovered"]) == ("state", True)
                assert await messages(back, 2) == [(1, "missed"), (2, "meanwhile")]

            nursery.start_soon(come_back)
            await trio.sleep(0.5)
            await publish(app, "meanwhile")


async def test_own_message_that_was_excluded_is_in_no_replay_to_the_same_connection(autojump_clock: MockClock) -> None:
    async with open_scene() as (app, server), open_v1_peer(server) as peer:
        position = (await join(peer))["position"]
        await peer.request("publish", room=ROOM, data="mine")
        await publish(app, "theirs")
        assert await messages(peer, 1) == [(2, "theirs")]
        await peer.request("leave", room=ROOM)
        assert (await join(peer, position))["recovered"]
        assert await messages(peer, 1) == [(2, "theirs")]
        async with open_v1_peer(server) as other:
            await join(other, position)
            assert await messages(other, 2) == [(1, "mine"), (2, "theirs")]


async def test_joining_twice_says_where_the_room_is_and_changes_nothing(autojump_clock: MockClock) -> None:
    async with open_scene() as (app, server), open_v1_peer(server) as peer:
        await join(peer)
        await publish(app, "one")
        await messages(peer, 1)
        answer = await join(peer, {"epoch": "e", "offset": 0})
        assert (answer["position"]["offset"], answer.get("recovered")) == (1, None)
        await publish(app, "two")
        assert await messages(peer, 1) == [(2, "two")]


async def test_nodes_share_positions(autojump_clock: MockClock) -> None:
    backplane = MemoryBackplane()
    here, there = app_of(), app_of()
    async with (
        open_test_server(here, backplane=backplane) as one,
        open_test_server(there, backplane=backplane) as two,
        open_v1_peer(one) as peer,
    ):
        position = (await join(peer))["position"]
        await here.publish(ROOM, "from here")
        await there.publish(ROOM, "from there")
        await messages(peer, 2)
        async with open_v1_peer(two) as moved:
            assert (await join(moved, {**position, "offset": 1}))["recovered"]
            assert await messages(moved, 1) == [(2, "from there")]


async def test_publication_that_is_tried_again_counts_once(autojump_clock: MockClock) -> None:
    async with open_scene() as (app, server), open_v1_peer(server) as peer:
        await join(peer)
        await peer.request("join", room="plain/a")
        for room in (ROOM, "plain/a"):
            for _ in range(2):
                await app.publish(room, "once", publication_id="id 1")
            await app.publish(room, "end")
            for expected in ("once", "end"):
                envelope = await peer.receive()
                assert (envelope["room"], envelope["data"]) == (room, expected)
        async with open_v1_peer(server) as publisher:
            await join(publisher)
            for data in ("a", "a", "b"):
                await publisher.request("publish", room=ROOM, data=data, publication_id=f"id {data}")
        assert [data for _, data in await messages(peer, 2)] == ["a", "b"]


@pytest.mark.parametrize("publication_id", ["", "x" * 129])
async def test_publication_id_has_a_length(publication_id: str, autojump_clock: MockClock) -> None:
    complaint = f"publication_id has {len(publication_id)} characters; give it 1 to 128, at random"
    async with open_scene() as (app, server), open_v1_peer(server) as peer:
        await join(peer)
        answer = await peer.request("publish", room=ROOM, data="x", publication_id=publication_id)
        assert (answer["code"], answer["message"]) == ("bad_envelope", f"publish: {complaint}")
        for room in (ROOM, "room/b"):
            with pytest.raises(ValueError, match=complaint):
                await app.publish(room, "x", publication_id=publication_id)
            with pytest.raises(TypeError, match="must be a string"):
                await app.publish(room, "x", publication_id=7)  # type: ignore[arg-type]  # which is what is tested


async def test_joining_with_a_position_can_be_cancelled_at_any_step(autojump_clock: MockClock) -> None:
    async with open_scene() as (app, server), open_v1_peer(server) as stays:
        position = (await join(stays))["position"]
        await publish(app, "missed")
        for step in range(60):
            with cancel_at_step(step) as scope:
                async with open_v1_peer(server) as back:
                    await join(back, position)
                    assert await messages(back, 1) == [(1, "missed")]
            await wait_all_tasks_blocked()
            assert server.statistics().connections == 1
            if not scope.cancelled_caught:
                break
        else:
            pytest.fail("never came to its end")


async def test_class_that_wants_a_history_needs_a_backplane_that_keeps_one() -> None:
    class Forgetful(MemoryBackplane):
        @property
        def history(self) -> None:
            return None

    with pytest.raises(ValueError, match=r"Kept\.history needs a backplane that keeps publications, which Forgetful"):
        async with open_test_server(app_of(), backplane=Forgetful()):
            pass


@pytest.mark.parametrize("history", [True, 100])
def test_history_of_a_class_is_a_history(history: object) -> None:
    room_class = type("Odd", (trioroom.Room,), {"history": history})
    with pytest.raises(TypeError, match=r"must be a trioroom\.History, or None"):
        trioroom.App().route("x", room_class)
