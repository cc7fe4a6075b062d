"""What an application does in a room, and gets from it, over lost connections too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked
from trio_websocket import ConnectionClosed

import trioroom
from tests.client.conftest import Codec, News, Peer, Script, make_app, open_app, open_script
from trioroom.client import Client, ClientRoom, FullInbox, Gap, Message, PresenceDiff, Rejoined
from trioroom.room import KeptMessage, PresentUser
from trioroom.testing import open_v1_peer


async def take(room: ClientRoom, count: int) -> list[object]:
    """The data of the next messages."""
    return [(await anext(room)).data for _ in range(count)]


async def test_members_talk_in_any_value(codec: Codec, autojump_clock: MockClock) -> None:
    values: list[object] = ["text ä", "", 0, -1.5, True, None, [1, [2, "x"]], {"a": {"b": None}}, b"\x00\xff", b""]
    async with open_app() as line, line.open_client(codec=codec) as one, line.open_client() as two:
        async with one.join("chat/a") as room, two.join("chat/a") as other:
            for value in values:
                await room.publish(value)
                message = await anext(other)
                assert (message.data, message.position) == (value, None)
                assert message.sender is not None
            await room.publish("unconfirmed", confirm=False)
            assert (await anext(other)).data == "unconfirmed"


async def test_data_that_cannot_be_sent_is_the_callers_error(codec: Codec, autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client(codec=codec) as client, client.join("chat/a") as room:
        for use in (room.publish, room.call):
            for wrong in (object(), {1: object()}):
                with pytest.raises(TypeError):
                    await use(wrong)
            with pytest.raises(trioroom.LocalProtocolError, match="max_message_bytes=65536 of the server"):
                await use("x" * 70_000)
        with pytest.raises(trioroom.RequestRefused) as refused:
            await room.publish("x", publication_id="x" * 200)
        assert refused.value.code == "bad_envelope"
        await room.publish("the connection goes on")
        assert line.dialled == 1


async def test_calls_are_answered_side_by_side_and_cancelled_at_the_server(autojump_clock: MockClock) -> None:
    async with open_app(max_calls_per_connection=1) as line, line.open_client() as client:
        async with client.join("chat/a") as room:
            with pytest.raises(trioroom.RequestRefused) as late:
                await room.call("slow", timeout=0.5)
            assert (late.value.code, late.value.retry) == ("timeout", True)
            with trio.move_on_after(1):
                await room.call("slow")
            assert await room.call("quick") == ["quick", None], "the one place is free again"
        async with client.join("lounge/a") as silent:
            with pytest.raises(trioroom.RequestRefused, match="answers no calls"):
                await silent.call("?")


async def test_call_is_sent_once(autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client() as client, client.join("chat/a") as room:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(trioroom.Disconnected) as lost:
                    await room.call("slow")
                assert lost.value.retry

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            await line.cut()
        assert await room.call("again") == ["again", None]


async def test_fire_and_forget_needs_a_connection(autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client() as client, client.join("chat/a") as room:
        await line.cut()
        await wait_all_tasks_blocked()
        with pytest.raises(trioroom.Disconnected):
            await room.publish("x", confirm=False)


async def test_recovery_brings_all_that_was_missed_once(codec: Codec, autojump_clock: MockClock) -> None:
    app = make_app()
    async with open_app(app) as line, line.open_client(codec=codec) as client, client.join("news/a") as room:
        events = room.events()
        for number in range(3):
            await app.publish("news/a", number)
            event = await anext(events)
            assert isinstance(event, Message)
            assert (event.data, event.position) == (number, room.position)
        await line.cut()
        for number in range(3, 6):
            await app.publish("news/a", number)
        assert await anext(events) == Rejoined(True, {"topic": "tea"})
        await app.publish("news/a", 6)
        assert await take(room, 4) == [3, 4, 5, 6]


async def test_what_cannot_be_recovered_is_a_gap(autojump_clock: MockClock) -> None:
    app = make_app()
    async with open_app(app) as line, line.open_client() as client:
        async with client.join("news/a") as kept, client.join("chat/a") as live:
            await line.cut()
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


async def test_publication_that_is_sent_again_counts_once(autojump_clock: MockClock) -> None:
    published = trio.Event()

    class Silent(News):
        async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
            await super().on_message(member, message)
            if not published.is_set():
                published.set()
                await trio.sleep_forever()  # so the first one goes out and is not answered

    app = trioroom.App()
    app.route("news/{name}", Silent)
    async with open_app(app) as line, line.open_client() as client, client.join("news/a") as room:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.publish, "once")
            await published.wait()
            await line.cut()
        await room.publish("and then this")
        page = await room.history()
        assert [message.data for message in page.messages] == ["once", "and then this"]


async def test_publication_is_retried_while_the_server_says_so(autojump_clock: MockClock) -> None:
    async with open_script() as (script, line), line.open_client() as client:
        line.nursery.start_soon(answer_publications, script, 3)
        async with client.join("chat/a") as room:
            began = trio.current_time()
            await room.publish("x")
            assert 6.0 <= trio.current_time() - began <= 7.0


async def answer_publications(script: Script, refusals: int) -> None:
    """Each is refused so often, to come again in 2 s, under the same publication id and another request id."""
    peer = await script.accept()
    await peer.answer_join("chat/a")
    heard = [await refuse(peer, "unavailable", retry=True, after=2.0) for _ in range(refusals)]
    last = await peer.hear()
    assert len({each["publication_id"] for each in [*heard, last]}) == 1
    assert len({each["id"] for each in [*heard, last]}) == refusals + 1
    await peer.say({"type": "ok", "id": last["id"]})


async def refuse(peer: Peer, code: str, *, retry: bool = False, after: float | None = None) -> dict[str, object]:
    heard: dict[str, object] = await peer.hear()
    await peer.say({"type": "error", "id": heard["id"], "code": code, "message": "no", "retry": retry, "after": after})
    return heard


async def test_publication_is_given_up_as_unconfirmed_after_two_minutes(autojump_clock: MockClock) -> None:
    async with open_script() as (script, line), line.open_client() as client:
        entering = client.join("chat/a")

        async def serve() -> None:
            while True:
                with suppress(ConnectionClosed):  # in the end
                    peer = await script.accept()
                    await peer.answer_join("chat/a")
                    await peer.hear()
                    await trio.sleep(50)
                    await peer.cut()

        line.nursery.start_soon(serve)
        async with entering as room:
            await trio.sleep(1)
            began = trio.current_time()
            with pytest.raises(trioroom.Unconfirmed) as unconfirmed:
                await room.publish("x")
            assert trio.current_time() - began == pytest.approx(120.0, abs=0.1)
            assert not unconfirmed.value.retry


async def test_publication_that_was_not_sent_waits_without_a_limit(autojump_clock: MockClock) -> None:
    app = make_app()
    async with open_app(app) as line, line.open_client() as client, client.join("news/a") as room:
        server, line.server = line.server, None
        await line.cut()
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.publish, "late")
            await trio.sleep(300)
            line.server = server
        assert [message.data for message in (await room.history()).messages] == ["late"]


async def test_publications_beyond_max_pending_await_their_turn(autojump_clock: MockClock) -> None:
    async with open_script() as (script, line), line.open_client(max_pending=2) as client:
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                peer = await script.accept()
                await peer.answer_join("chat/a")
                waiting = [await peer.hear(), await peer.hear()]
                with trio.move_on_after(10) as silence:
                    await peer.hear()
                assert silence.cancelled_caught
                for _ in range(3):
                    await peer.say({"type": "ok", "id": waiting.pop(0)["id"]})
                    if len(waiting) == 1:
                        waiting.append(await peer.hear())

            line.nursery.start_soon(serve)
            async with client.join("chat/a") as room:
                async with trio.open_nursery() as publishing:
                    for number in range(3):
                        publishing.start_soon(room.publish, number)
                nursery.cancel_scope.cancel()


async def test_history_and_who_are_pages_and_asked_again(codec: Codec, autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client("ann", codec) as client:
        async with client.join("news/a") as room:
            for data in (b"\x00", "two", 3):
                await room.publish(data)
            latest = await room.history(2)
            assert [message.data for message in latest.messages] == ["two", 3]
            assert latest.more
            older = await room.history(before=trioroom.Position(latest.position.epoch, 2))
            assert [(message.offset, message.data) for message in older.messages] == [(1, b"\x00")]
            assert isinstance(older.messages[0], KeptMessage)
            await line.cut()
            newer = await room.history(after=trioroom.Position(latest.position.epoch, 2))
            assert [message.data for message in newer.messages] == [3]
            with pytest.raises(trioroom.RequestRefused, match="position_lost"):
                await room.history(after=trioroom.Position("another", 2))
        async with client.join("lounge/a") as lounge:
            page = await lounge.who()
            assert page.members == (PresentUser("ann", {"name": "ann"}),)
            assert (page.count, page.more) == (1, False)


async def test_presence_is_kept_and_told(autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client("ann") as client, client.join("lounge/a", presence=True) as room:
        await room.wait_present()
        await trio.sleep(2)  # the first push is of ourselves
        async with line.open_client("bob") as other, other.join("lounge/a"):
            event = await anext(room.events())
            assert event == PresenceDiff((PresentUser("bob", {"name": "bob"}),), (), 2)
            assert room.present == {"ann": {"name": "ann"}, "bob": {"name": "bob"}}
            assert room.present_count == 2
        assert await anext(room.events()) == PresenceDiff((), ("bob",), 1)
        assert room.present == {"ann": {"name": "ann"}}


async def test_rooms_that_only_count_tell_numbers(autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client("ann") as client, client.join("crowd/a", presence=True) as room:
        await room.wait_present()
        await trio.sleep(2)
        async with line.open_client("bob") as other, other.join("crowd/a"):
            async for event in room.events():
                if isinstance(event, PresenceDiff) and event.count == 2:
                    break
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
            await line.cut()
            with pytest.raises(trioroom.RequestRefused, match="the word is another"):
                await anext(room)
            assert await other.call(1) == [1, "guess"]


async def test_left_room_is_closed_and_can_be_joined_again(autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client() as client:
        async with client.join("chat/a") as room:
            pass
        uses: list[Callable[[], Awaitable[object]]] = [
            room.__anext__, room.events().__anext__, lambda: room.publish("x"), lambda: room.call("x"), room.history,
            room.who,
        ]  # fmt: skip
        for use in uses:
            with pytest.raises(trio.ClosedResourceError):
                await use()
        async with client.join("chat/a") as again:
            await again.publish("x")
        assert isinstance(line.server, trioroom.Server)
        assert line.server.statistics().rooms == 0


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


async def test_public_calls_are_checkpoints(autojump_clock: MockClock) -> None:
    async with open_app() as line, line.open_client("ann") as client, client.join("news/a") as room:
        uses: list[Callable[[], Awaitable[object]]] = [
            lambda: room.publish(1), lambda: room.publish(1, confirm=False), lambda: room.call(1), room.history,
            client.wait_open, lambda: client.authenticate("bob"), client.states().__anext__,
        ]  # fmt: skip
        for use in uses:
            with assert_checkpoints():
                await use()


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
