"""An active room: its subscription, its places, its end. What its hooks see stands in tests/test_room*.py."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from trioroom.backplane.memory import MemoryBackplane
from trioroom.backplane.room_channel import RoomChannel
from trioroom.testing import open_peer, open_test_server, open_v1_peer


class Link(MemoryBackplane):
    """A backplane that can fail, and tells the journal what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.journal: list[str] = []
        self.is_up = True
        self.breaks = trio.Event()
        """Ends every subscription that is open."""
        self.room_closed = trio.Event()

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        if not self.is_up:
            raise trioroom.BackplaneUnavailable("the broker is down")
        await super().publish(room, payload)

    @asynccontextmanager
    async def subscribe(self, room: str, channel: RoomChannel) -> AsyncIterator[None]:
        if not self.is_up:
            raise trioroom.BackplaneUnavailable("the broker is down")
        self._note(room, f"subscribe {room} {channel.max_publications} {channel.max_bytes}")
        async with super().subscribe(room, channel), trio.open_nursery() as nursery:
            nursery.start_soon(self._break)
            yield
            nursery.cancel_scope.cancel()
        self._note(room, f"unsubscribe {room}")

    def _note(self, room: str, what: str) -> None:
        if room.isprintable():  # else it is for servers
            self.journal.append(what)

    async def _break(self) -> None:
        await self.breaks.wait()
        raise trioroom.BackplaneUnavailable("the link broke")


class Hall(trioroom.Room):
    """Tells the journal which hook runs."""

    link: Link

    async def on_open(self) -> None:
        self.link.journal.append("on_open")

    async def on_join(self, member: trioroom.Member) -> object:
        self.link.journal.append("on_join")
        return "state"

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        if message.data == "refuse to end":
            with trio.CancelScope(shield=True):
                await trio.sleep(100)
        else:
            await self.publish(message.data)

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        self.link.journal.append("on_leave")
        await self.publish("someone left")
        await trio.sleep(0.1)
        self.link.journal.append("on_leave ends")

    async def on_close(self) -> None:
        self.link.journal.append("on_close")
        self.link.room_closed.set()


def app_with(link: Link) -> trioroom.App:
    app = trioroom.App()
    app.route("hall/{name}", type("Hall", (Hall,), {"link": link}))
    return app


async def test_subscription_lasts_from_before_on_open_until_after_the_last_on_leave(autojump_clock: MockClock) -> None:
    link = Link()
    settings = trioroom.Settings(room_channel_size=77, room_channel_bytes=7_700)
    async with open_test_server(app_with(link), settings, backplane=link) as server:
        for _ in range(2):
            async with open_peer(server, "/hall/a") as peer:
                assert await peer.receive() == "state"
            await trio.sleep(1)
    assert link.journal == 2 * [
        *("subscribe hall/a 77 7700", "on_open", "on_join"),
        *("on_leave", "on_leave ends", "unsubscribe hall/a", "on_close"),
    ]


async def test_room_that_cannot_subscribe_turns_its_joiners_away_until_it_can(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.DEBUG, "trioroom")
    link = Link()
    async with open_test_server(app_with(link), backplane=link) as server, open_v1_peer(server) as v1:
        link.is_up = False
        refused = await v1.request("join", room="hall/a")
        assert (refused["code"], refused["retry"]) == ("unavailable", True)
        async with open_peer(server, "/hall/a") as peer:
            with pytest.raises(trioroom.ConnectionClosed) as closed:
                await peer.receive()
            assert closed.value.code == 1013
        assert "the broker is down" in caplog.text
        assert "Traceback" not in caplog.text
        assert "on_close" not in link.journal  # there has been nothing to close
        link.is_up = True
        await v1.join("hall/a")
        await v1.request("publish", room="hall/a", data="hello")
        assert (await v1.receive())["data"] == "hello"


async def test_subscription_that_breaks_ends_the_room_for_its_members(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.DEBUG, "trioroom")
    link = Link()
    async with open_test_server(app_with(link), backplane=link) as server:
        async with open_peer(server, "/hall/a") as peer:
            assert await peer.receive() == "state"
            link.breaks.set()
            with pytest.raises(trioroom.ConnectionClosed) as closed:
                await peer.receive()
            assert (closed.value.code, closed.value.reason[:17]) == (1013, "the other servers")
        assert "1013: the link broke" in caplog.text
        link.breaks = trio.Event()
        async with open_peer(server, "/hall/a") as peer:
            assert await peer.receive() == "state"
    assert link.journal.count("on_leave ends") == link.journal.count("on_close") == 2


async def test_publication_that_fails_is_the_publishers_failure(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.DEBUG, "trioroom")
    link = Link()
    app = app_with(link)
    async with open_test_server(app, backplane=link) as server, open_peer(server, "/hall/a") as other:
        assert await other.receive() == "state"
        async with open_peer(server, "/hall/a") as publisher:
            assert await publisher.receive() == "state"
            link.is_up = False
            with pytest.raises(trioroom.BackplaneUnavailable):
                await app.publish("hall/a", "from outside")
            await publisher.send("from a member")
            with pytest.raises(trioroom.ConnectionClosed) as closed:
                await publisher.receive()
            assert closed.value.code == 1013
        await wait_all_tasks_blocked()
        assert "room hall/a: on_leave failed" in caplog.text  # it publishes, too
        link.is_up = True
        await other.send("still here")
        assert await other.receive() == "still here"


async def test_room_hears_nothing_of_what_was_said_before_it_opened(autojump_clock: MockClock) -> None:
    link = Link()
    app = app_with(link)
    async with open_test_server(app, backplane=link) as server:
        for text in ("one", "two"):
            await app.publish("hall/a", "to nobody")
            async with open_peer(server, "/hall/a") as peer:
                await peer.send(text)
                assert [await peer.receive() for _ in range(2)] == ["state", text]
            await trio.sleep(1)


async def test_member_is_left_by_the_first_who_asks(autojump_clock: MockClock) -> None:
    members: list[trioroom.Member] = []
    answers: list[bool] = []

    class Slow(trioroom.Room):
        async def on_join(self, member: trioroom.Member) -> object:
            members.append(member)
            return None

        async def on_leave(self, member: trioroom.Member, reason: str) -> None:
            await trio.sleep(0.5)
            answers.append(reason == "first")

    app = trioroom.App()
    app.route("hall/{name}", Slow)
    async with open_test_server(app) as server, open_v1_peer(server) as v1:
        await v1.join("hall/a")
        (member,) = members
        async with trio.open_nursery() as nursery:
            nursery.start_soon(member._active.leave, member, "first")
            await wait_all_tasks_blocked()
            assert answers == []
            assert await member._active.leave(member, "second") is False
            assert answers == []
        assert answers == [True]


async def test_member_that_does_not_end_holds_up_a_cancelled_room_for_its_deadlines_only(
    autojump_clock: MockClock,
) -> None:
    link = Link()
    app = app_with(link)
    settings = trioroom.Settings(close_timeout=2, leave_timeout=1)
    closed_after: list[float] = []

    async def note_the_end_of_the_room() -> None:
        await link.room_closed.wait()
        closed_after.append(trio.current_time() - start)

    with trio.fail_after(1_000):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with open_test_server(app, settings, backplane=link) as server:
                    async with open_peer(server, "/hall/a", tcp=False) as peer:
                        await peer.send("refuse to end")
                        await wait_all_tasks_blocked()
                        start = trio.current_time()
                        nursery.start_soon(note_the_end_of_the_room)
                        scope.cancel()
                        await trio.sleep_forever()
    assert closed_after == [pytest.approx(2 + 2 * 1)]
    assert link.journal[-2:] == ["on_leave", "on_leave ends"], "on_leave has come late, but it has come"


async def test_life_without_failures_logs_no_error(caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    link = Link()
    async with open_test_server(app_with(link), backplane=link) as server:
        async with open_peer(server, "/hall/a") as peer:
            assert await peer.receive() == "state"
            await peer.close()
            await trio.sleep(1)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_active_room_is_one_task(autojump_clock: MockClock) -> None:
    app = trioroom.App()
    app.route("quiet/{name}", trioroom.Room)
    async with open_test_server(app) as server, open_v1_peer(server) as v1:
        await v1.join("quiet/0")
        await wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        for number in range(1, 11):
            await v1.join(f"quiet/{number}")
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living - tasks == 10


async def test_room_that_is_deserted_while_it_opens_finishes_opening_and_ends(autojump_clock: MockClock) -> None:
    journal: list[str] = []

    class Slow(trioroom.Room):
        async def on_open(self) -> None:
            await trio.sleep(1)
            journal.append("on_open ends")

        async def on_close(self) -> None:
            journal.append("on_close")

    app = trioroom.App()
    app.route("slow/{name}", Slow)
    async with open_test_server(app) as server:
        with trio.move_on_after(0.5):
            async with open_peer(server, "/slow/a"):
                await trio.sleep_forever()
        assert journal == []
        await trio.sleep(2)
        assert journal == ["on_open ends", "on_close"]
        assert server.statistics().rooms == 0
