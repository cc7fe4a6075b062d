"""A place in a room outlives connections: what comes in order, what is missing as a gap, who is there."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

import trioroom
from tests.client.conftest import Codec, make_app, open_app, open_script
from trioroom.client import Client, ClientRoom, FullInbox, Gap, Message, PresenceDiff, Rejoined
from trioroom.room import PresentUser
from trioroom.testing import open_v1_peer


async def take(room: ClientRoom, count: int) -> list[object]:
    """The data of the next messages."""
    return [(await anext(room)).data for _ in range(count)]


async def test_recovery_brings_all_that_was_missed_once(codec: Codec, autojump_clock: MockClock) -> None:
    app = make_app()
    async with open_app(app) as line, line.open_client(codec=codec) as client, client.join("news/a") as room:
        events = room.events()
        for number in range(3):
            await app.publish("news/a", number)
            event = await anext(events)
            assert isinstance(event, Message)
            assert (event.data, event.position) == (number, room.position)
        line.cut()
        for number in range(3, 6):
            await app.publish("news/a", number)
        assert await anext(events) == Rejoined(True, {"topic": "tea"})
        await app.publish("news/a", 6)
        assert await take(room, 4) == [3, 4, 5, 6]


async def test_what_cannot_be_recovered_is_a_gap(autojump_clock: MockClock) -> None:
    app = make_app()
    async with open_app(app) as line, line.open_client() as client:
        async with client.join("news/a") as kept, client.join("chat/a") as live:
            line.cut()
            for number in range(101):
                await app.publish("news/a", number)
            events, others = kept.events(), live.events()
            assert await anext(events) == Rejoined(False, {"topic": "tea"})
            assert await anext(events) == Gap("reconnect", None, kept.position)
            assert kept.position is not None
            assert kept.position.offset == 101
            assert [await anext(others), await anext(others)] == [Rejoined(False, {"topic": "tea"}), Gap("reconnect")]
            await app.publish("news/a", "on")
            assert await take(kept, 1) == ["on"]


async def test_position_of_another_process_is_where_it_goes_on(autojump_clock: MockClock) -> None:
    app = make_app()
    async with open_app(app) as line:
        async with line.open_client() as client, client.join("news/a") as room:
            position = room.position
            await app.publish("news/a", "missed")
        async with line.open_client() as client, client.join("news/a", position=position) as room:
            assert await anext(room.events()) == Rejoined(True, {"topic": "tea"})
            assert await take(room, 1) == ["missed"]


async def test_presence_is_kept_and_told(autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client("ann") as client, client.join("lounge/a", presence=True) as room:
        assert await anext(room.events()) == PresenceDiff((PresentUser("ann", {"name": "ann"}),), (), 1)
        await trio.sleep(2)  # the first push is of ourselves
        async with line.open_client("bob") as other, other.join("lounge/a"):
            event = await anext(room.events())
            assert event == PresenceDiff((PresentUser("bob", {"name": "bob"}),), (), 2)
            assert room.present == {"ann": {"name": "ann"}, "bob": {"name": "bob"}}
            assert room.present_count == 2
        assert await anext(room.events()) == PresenceDiff((), ("bob",), 1)
        assert room.present == {"ann": {"name": "ann"}}


async def test_list_that_was_not_asked_for_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client("ann") as client, client.join("lounge/a") as room:
        with pytest.raises(RuntimeError, match="joined without its list; join it with presence=True"):
            await room.wait_present()


async def test_rooms_that_only_count_tell_numbers(autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client("ann") as client, client.join("crowd/a", presence=True) as room:
        events = room.events()
        assert await anext(events) == PresenceDiff((), (), 1)
        await trio.sleep(2)
        async with line.open_client("bob") as other, other.join("crowd/a"):
            assert await anext(events) == PresenceDiff((), (), 2)
        assert (room.present, room.present_count) == ({}, 2)


async def test_kicked_ends_the_room_behind_what_came_before(autojump_clock: MockClock) -> None:
    class Bouncer(trioroom.Room):
        async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
            member.send("last words")
            member.leave("be kind")

    app = make_app()
    app.route("bouncer/{name}", Bouncer)
    async with open_app(app) as line, line.open_client() as client:
        async with client.join("bouncer/a") as room, client.join("chat/a") as other:
            await room.publish("rude", confirm=False)
            assert await take(room, 1) == ["last words"]
            with pytest.raises(trioroom.Kicked) as kicked:
                await anext(room)
            assert (kicked.value.code, kicked.value.reason) == (4002, "be kind")
            with pytest.raises(trioroom.Kicked):
                await room.publish("again")
            assert await other.call(1) == [1, None]
        async with client.join("bouncer/a") as again:
            assert again.name == "bouncer/a"


async def test_room_that_refuses_to_be_joined_again_ends(autojump_clock: MockClock) -> None:
    words = iter(["t0k3n", "guess"])
    async with open_app() as line, line.open_client(lambda: next(words)) as client:
        async with client.join("private/a") as room, client.join("chat/a") as other:
            line.cut()
            with pytest.raises(trioroom.RequestRefused, match="the word is another"):
                await anext(room)
            assert await other.call(1) == [1, "guess"]


async def test_slow_reader_gets_a_gap_and_the_latest(autojump_clock: MockClock) -> None:
    app = make_app()
    async with open_app(app) as line, line.open_client() as client, client.join("news/a", max_inbox=3) as room:
        for number in range(10):
            await app.publish("news/a", number)
        await trio.sleep(1)
        events = room.events()
        gap = await anext(events)
        assert isinstance(gap, Gap)
        assert (gap.reason, gap.lost, gap.position and gap.position.offset) == ("inbox", 7, 7)
        assert await take(room, 3) == [7, 8, 9]


async def test_waiting_inbox_holds_the_server_up_and_loses_nothing(autojump_clock: MockClock) -> None:
    app = make_app()
    async with open_app(app, ping_interval=1e6) as line:
        async with line.open_client(full_inbox=FullInbox.WAIT) as client, client.join("news/a", max_inbox=3) as room:
            for number in range(50):
                await app.publish("news/a", number)
            await trio.sleep(1)
            assert room.position is not None
            assert room.position.offset == 3
            assert await take(room, 50) == list(range(50))


async def test_answers_come_through_a_full_inbox(autojump_clock: MockClock) -> None:
    """Who publishes while it reads, which is natural, would else wait for an answer behind what it has not read."""
    app = make_app()
    async with open_app(app) as line:
        async with line.open_client(full_inbox=FullInbox.WAIT) as client, client.join("news/a", max_inbox=2) as room:
            for number in range(4):
                await app.publish("news/a", number)
            await trio.sleep(1)
            with trio.fail_after(5):
                await room.publish("answer")
            assert await take(room, 4) == [0, 1, 2, 3]


async def test_client_with_a_full_inbox_can_be_closed(autojump_clock: MockClock) -> None:
    app = make_app()
    async with open_app(app) as line:
        async with line.open_client(full_inbox=FullInbox.WAIT) as client, client.join("news/a", max_inbox=1):
            for number in range(10):
                await app.publish("news/a", number)
            await trio.sleep(1)
            left_at = trio.current_time()
        assert trio.current_time() == left_at


async def test_messages_of_other_rooms_and_unknown_pushes_are_passed_over(autojump_clock: MockClock) -> None:
    async with open_script() as (script, line), line.open_client() as client:

        async def serve() -> None:
            peer = await script.accept()
            await peer.hear()
            early = {"type": "message", "room": "chat/a", "data": "of an earlier membership"}
            await peer.say(early, {"type": "ok", "id": 1, "room": "chat/a"})
            await peer.say({"type": "weather"})
            await peer.say(
                {"type": "message", "room": "chat/z", "data": 9},
                {"type": "weather", "room": "chat/a", "sun": True},
                {"type": "message", "room": "chat/a", "data": 1, "colour": {"deep": [1]}},
            )

        line.nursery.start_soon(serve)
        async with client.join("chat/a") as room:
            assert await take(room, 1) == [1]


async def test_position_follows_gaps_and_epochs(autojump_clock: MockClock) -> None:
    async with open_script() as (script, line), line.open_client() as client:

        async def serve() -> None:
            peer = await script.accept()
            await peer.answer_join("news/a", position={"epoch": "e", "offset": 3})
            await peer.say({"type": "gap", "room": "news/a", "reason": "overflow", "lost": 2})
            await peer.say({"type": "message", "room": "news/a", "data": 1, "offset": 6})
            await peer.say({"type": "position", "room": "news/a", "position": {"epoch": "f", "offset": 6}})
            await peer.say({"type": "message", "room": "news/a", "data": 2, "offset": 7})
            await peer.say(
                {"type": "gap", "room": "news/a", "reason": "expired", "lost": None,
                 "position": {"epoch": "g", "offset": 2}}
            )  # fmt: skip
            await peer.say({"type": "message", "room": "news/a", "data": "to you alone"})
            await peer.cut()
            peer = await script.accept()
            joined = await peer.answer_join("news/a", position={"epoch": "g", "offset": 2}, recovered=True)
            assert joined["position"] == {"epoch": "g", "offset": 2}

        line.nursery.start_soon(serve)
        async with client.join("news/a") as room:
            events = room.events()
            position = trioroom.Position
            assert [await anext(events) for _ in range(6)] == [
                Gap("overflow", 2),
                Message(1, None, position("e", 6)),
                Message(2, None, position("f", 7)),
                Gap("expired", None, position("g", 2)),
                Message("to you alone"),
                Rejoined(True),
            ]


async def test_join_of_a_full_room_is_tried_again(autojump_clock: MockClock) -> None:
    class Small(trioroom.Room):
        max_members = 1

    app = trioroom.App()
    app.route("small/{name}", Small)
    async with open_app(app) as line, line.open_client() as client:
        assert isinstance(line.server, trioroom.Server)
        async with trio.open_nursery() as nursery, open_v1_peer(line.server) as first:
            await first.join("small/a")
            nursery.start_soon(enter, client, "small/a")
            await trio.sleep(10)
            assert len(nursery.child_tasks) == 1
            await first.request("leave", room="small/a")


async def enter(client: Client, room: str) -> None:
    async with client.join(room):
        pass
