"""What a room class says of its own size, and what a room and a server say of themselves."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from tests.conftest import app_of, closed_with
from trioroom import Overflow
from trioroom.testing import open_peer, open_test_server, open_v1_peer


class Small(trioroom.Room):
    max_members = 2


async def test_member_too_many_is_told_to_come_again(autojump_clock: MockClock) -> None:
    reason = "room 'room/a' is full with 2 members; try again later"
    async with open_test_server(app_of(Small)) as server, open_peer(server, "/room/a") as one:
        async with open_v1_peer(server) as two, open_v1_peer(server) as four:
            await two.join("room/a")
            async with open_peer(server, "/room/a") as three:
                assert await closed_with(three) == (1013, reason)
            answer = await four.request("join", room="room/a")
            assert (answer["code"], answer["message"], answer["retry"]) == ("room_full", reason, True)
            await four.join("room/b")  # the connection stays, and other rooms have places
            await two.request("leave", room="room/a")
            await four.join("room/a")
        await one.send("still here")


async def test_setting_bounds_rooms_that_say_nothing(autojump_clock: MockClock) -> None:
    settings = trioroom.Settings(max_members_per_room=1)
    async with open_test_server(app_of(trioroom.Room), settings) as server, open_peer(server, "/room/a"):
        await wait_all_tasks_blocked()
        async with open_peer(server, "/room/a") as second:
            assert (await closed_with(second))[0] == 1013


async def test_places_are_not_overdrawn_by_joins_at_the_same_time(autojump_clock: MockClock) -> None:
    class Slow(trioroom.Room):
        max_members = 2

        async def authorize(self, member: trioroom.Member) -> None:
            await trio.sleep(1)

        async def on_join(self, member: trioroom.Member) -> str:
            await trio.sleep(1)
            return "in"

    async with open_test_server(app_of(Slow)) as server, trio.open_nursery() as nursery:
        outcomes: list[str] = []

        async def come() -> None:
            async with open_peer(server, "/room/a") as peer:
                try:
                    outcomes.append(str(await peer.receive()))
                    await trio.sleep_forever()
                except trioroom.ConnectionClosed as closed:
                    outcomes.append(str(closed.code))

        for _ in range(5):
            nursery.start_soon(come)
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
    assert sorted(outcomes) == ["1013"] * 3 + ["in"] * 2


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("overflow", "drop_oldest", TypeError),
        ("max_outbox_messages", 0, ValueError),
        ("max_outbox_messages", 1.5, TypeError),
        ("max_outbox_bytes", -1, ValueError),
        ("max_outbox_bytes", True, TypeError),
        ("max_members", 0, ValueError),
        ("max_members", "many", TypeError),
    ],
)
def test_limit_that_makes_no_sense_is_refused_with_the_route(name: str, value: object, error: type[Exception]) -> None:
    room_class: Any = type("Odd", (trioroom.Room,), {name: value})
    with pytest.raises(error, match=rf"^Odd\.{name}="):
        trioroom.App().route("odd", room_class)


# -- statistics ------------------------------------------------------------------------------------


async def test_room_and_server_say_where_the_messages_went(autojump_clock: MockClock) -> None:
    seen: list[trioroom.RoomStatistics] = []

    class Counted(trioroom.Room):
        async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
            await self.publish(message.data)
            await trio.sleep(1)
            seen.append(self.statistics())
            member.send("counted")

    class Dropping(trioroom.Room):
        overflow = Overflow.DROP_OLDEST

    app = app_of(Counted)
    app.route("dropping", Dropping)
    async with open_test_server(app) as server:
        async with (
            open_peer(server, "/room/a") as one,
            open_peer(server, "/room/a") as two,
            open_peer(server, "/dropping"),
        ):
            await one.send("hello")
            assert [await one.receive(), await one.receive(), await two.receive()] == ["hello", "counted", "hello"]
            deliveries = trioroom.Deliveries(offered=2, sent=2, queued=0, dropped=0, unsent=0, slow_consumers=0)
            assert seen == [trioroom.RoomStatistics(2, Overflow.DISCONNECT, 0, deliveries)]
            statistics = server.statistics()
            assert (statistics.connections, statistics.rooms, statistics.dropped_queues) == (3, 2, 0)
            assert statistics.deliveries[Overflow.DISCONNECT].offered == 3
            assert statistics.deliveries[Overflow.DROP_OLDEST].offered == 0
        await wait_all_tasks_blocked()
        await trio.sleep(1)
        statistics = server.statistics()
        assert (statistics.connections, statistics.rooms, statistics.queued_bytes) == (0, 0, 0)
        assert statistics.deliveries[Overflow.DISCONNECT].sent == 3  # those of closed rooms stay
