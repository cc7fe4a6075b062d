"""Hooks and tasks of the room itself that raise: its members and joiners go, its name is free again."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from tests.conftest import app_of, close_code, logged_traceback
from trioroom.testing import open_peer, open_test_server, open_v1_peer


async def test_on_open_that_fails_turns_all_joiners_away_and_the_next_one_tries_again(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    attempts: list[trioroom.Room] = []

    class HardToOpen(trioroom.Room):
        async def authorize(self, member: trioroom.Member) -> None:
            assert len(attempts) > 1, "there is no room to ask"

        async def on_open(self) -> None:
            attempts.append(self)
            if len(attempts) == 1:
                await wait_all_tasks_blocked()
                raise ValueError("on_open is broken")

    async with open_test_server(app_of(HardToOpen)) as server, open_v1_peer(server) as v1:
        await v1.send({"type": "join", "id": 1, "room": "room/a"})
        async with open_peer(server, "/room/a") as plain:
            assert await close_code(plain) == 1011
        refused = await v1.receive_answer(1)
        assert (refused["code"], refused["retry"]) == ("failed", True)
        assert logged_traceback(caplog, "ValueError: on_open is broken")
        await v1.join("room/a")
        assert len(attempts) == 2


async def test_on_close_that_fails_or_does_not_end_leaves_the_name_free(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    class HardToClose(trioroom.Room):
        async def on_close(self) -> None:
            if self.name == "room/fails":
                raise ValueError("on_close is broken")
            await trio.sleep_forever()

    async with open_test_server(app_of(HardToClose)) as server, open_v1_peer(server) as v1:
        for name in ("room/fails", "room/dawdles"):
            await v1.join(name)
            await v1.request("leave", room=name)
            await v1.join(name)
            await v1.request("leave", room=name)
        assert caplog.text.count("ValueError: on_close is broken") == 2
        assert "on_close cut off after leave_timeout=1 s" in caplog.text


class Ticking(trioroom.Room):
    """Has a task that crashes when it is told to."""

    async def on_open(self) -> None:
        self.told = trio.Event()
        self.nursery.start_soon(self.tick)

    async def tick(self) -> None:
        await self.told.wait()
        raise ValueError("tick is broken")

    async def authorize(self, member: trioroom.Member) -> None:
        if member.request.query == "slowly":
            await trio.sleep(1)

    async def on_join(self, member: trioroom.Member) -> object:
        if member.request.query == "joins slowly":
            await trio.sleep_forever()
        return "joined"

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        self.told.set()


async def test_crash_of_a_room_task_closes_members_and_joiners_of_that_room_only(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_test_server(app_of(Ticking)) as server, open_peer(server, "/room/b") as elsewhere:
        async with (
            open_peer(server, "/room/a") as one,
            open_peer(server, "/room/a?joins%20slowly") as two,
            open_v1_peer(server) as v1,
        ):
            await v1.join("room/a")
            await one.send("crash")
            assert [await close_code(peer) for peer in (one, two, v1.peer)] == [1011] * 3
        assert logged_traceback(caplog, "ValueError: tick is broken")
        async with open_peer(server, "/room/a") as again:
            assert await again.receive() == "joined"
        assert await elsewhere.receive() == "joined"
        await elsewhere.send("crash")
        assert await close_code(elsewhere) == 1011


async def test_joiner_whose_room_crashes_while_it_is_authorized_is_turned_away(autojump_clock: MockClock) -> None:
    async with open_test_server(app_of(Ticking)) as server:
        async with open_peer(server, "/room/a") as one, open_peer(server, "/room/a?slowly") as two:
            await one.send("crash")
            assert await close_code(one) == 1011
            with pytest.raises(trioroom.ConnectionClosed) as closed:
                await two.receive()
            assert (closed.value.code, closed.value.reason[:23]) == (1011, "the room failed to open")


async def test_room_tasks_are_cancelled_after_the_last_member_left(autojump_clock: MockClock) -> None:
    class Working(trioroom.Room):
        async def on_open(self) -> None:
            self.nursery.start_soon(self.work)

        async def work(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append(len(self.members))

        async def on_close(self) -> None:
            ended.append("on_close")

    ended: list[object] = []
    async with open_test_server(app_of(Working)) as server:
        async with open_peer(server, "/room/a"):
            async with open_peer(server, "/room/a"):
                await wait_all_tasks_blocked()
            await wait_all_tasks_blocked()
            assert ended == []
        await wait_all_tasks_blocked()
        assert ended == [0, "on_close"]
