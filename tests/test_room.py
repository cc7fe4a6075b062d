"""`Room`: its hooks, when they run, and who gets what is published."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from tests.conftest import app_of
from trioroom.testing import open_peer, open_test_server, open_v1_peer

journal: list[str] = []


@pytest.fixture(autouse=True)
def _fresh_journal() -> Iterator[None]:
    yield
    journal.clear()


class Journal(trioroom.Room):
    """Writes down which hook ran."""

    async def authorize(self, member: trioroom.Member) -> None:
        journal.append("authorize")

    async def on_open(self) -> None:
        journal.append("open")

    async def on_join(self, member: trioroom.Member) -> object:
        journal.append("join")
        return None

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        journal.append(f"message {message.data!r}")
        await super().on_message(member, message)

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        journal.append(f"leave: {reason}")

    async def on_close(self) -> None:
        journal.append("close")


# -- the order of hooks ----------------------------------------------------------------------------


async def test_hooks_run_from_the_first_member_to_the_last(autojump_clock: MockClock) -> None:
    async with open_test_server(app_of(Journal)) as server:
        async with open_peer(server, "/room/a") as one:
            async with open_peer(server, "/room/a") as two:
                await two.send("hi")
                assert await one.receive() == "hi"
                await two.close(4000)
                await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert journal == [
            *("open", "authorize", "join", "authorize", "join", "message 'hi'"),
            *("leave: closed with 4000", "leave: connection lost", "close"),
        ]


async def test_room_knows_its_name_and_parameters_before_any_hook(autojump_clock: MockClock) -> None:
    class Named(trioroom.Room):
        async def on_open(self) -> None:
            self.known = [self.name, self.params, len(self.members)]

        async def on_join(self, member: trioroom.Member) -> object:
            return self.known

    app = trioroom.App()
    app.route("{town}/rooms/{room}", Named)
    async with open_test_server(app) as server, open_peer(server, "/Ulm/rooms/a-1") as peer:
        assert await peer.receive() == '["Ulm/rooms/a-1",{"town":"Ulm","room":"a-1"},0]'


async def test_joiners_wait_for_on_open_which_runs_once(autojump_clock: MockClock) -> None:
    opening = trio.Event()

    class Slow(Journal):
        async def on_open(self) -> None:
            await super().on_open()
            await opening.wait()
            journal.append("opened")

    async with open_test_server(app_of(Slow)) as server:
        async with open_peer(server, "/room/a"), open_peer(server, "/room/a"):
            await wait_all_tasks_blocked()
            assert journal == ["open"]
            opening.set()
            await wait_all_tasks_blocked()
            assert journal == ["open", "opened", "authorize", "join", "authorize", "join"]


async def test_messages_of_one_member_are_handled_one_by_one_and_members_side_by_side(
    autojump_clock: MockClock,
) -> None:
    class Slow(trioroom.Room):
        async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
            journal.append(f"{message.data} begins")
            await trio.sleep(1)
            journal.append(f"{message.data} ends")

    async with open_test_server(app_of(Slow)) as server:
        async with open_peer(server, "/room/a") as one, open_peer(server, "/room/a") as two:
            await one.send("1a")
            await one.send("1b")
            await trio.sleep(0.5)
            await two.send("2a")
            await trio.sleep(2)
            assert journal == ["1a begins", "2a begins", "1a ends", "1b begins", "2a ends", "1b ends"]


async def test_room_opens_anew_after_it_closed_as_another_object(autojump_clock: MockClock) -> None:
    rooms: list[trioroom.Room] = []
    closing = trio.Event()

    class Closing(Journal):
        async def on_open(self) -> None:
            await super().on_open()
            rooms.append(self)

        async def on_close(self) -> None:
            await closing.wait()
            await super().on_close()

    async with open_test_server(app_of(Closing)) as server:
        async with open_peer(server, "/room/a"):
            pass
        await wait_all_tasks_blocked()
        async with open_peer(server, "/room/a"), open_peer(server, "/room/a"):
            await wait_all_tasks_blocked()
            assert journal == ["open", "authorize", "join", "leave: connection lost"]  # they wait for on_close
            closing.set()
            await wait_all_tasks_blocked()
            assert journal[4:] == ["close", "open", "authorize", "join", "authorize", "join"]
    assert len(rooms) == 2
    assert rooms[0] is not rooms[1]


async def test_authorize_that_refuses_lets_no_other_hook_see_the_member(autojump_clock: MockClock) -> None:
    class Closed(Journal):
        async def authorize(self, member: trioroom.Member) -> None:
            raise trioroom.JoinRefused("members only")

    async with open_test_server(app_of(Closed)) as server:
        async with open_peer(server, "/room/a") as peer:
            with pytest.raises(trioroom.ConnectionClosed) as closed:
                await peer.receive()
            assert (closed.value.code, closed.value.reason) == (4001, "members only")
        async with open_v1_peer(server) as v1:
            answer = await v1.request("join", room="room/a")
            assert (answer["code"], answer["message"]) == ("denied", "members only")
        await wait_all_tasks_blocked()
    assert journal == ["open", "close"] * 2


@pytest.mark.parametrize("hook", ["authorize", "on_join"])
async def test_refusal_carries_a_close_code_of_its_own(hook: str, autojump_clock: MockClock) -> None:
    class Closed(trioroom.Room):
        async def refuse(self, member: trioroom.Member) -> None:
            raise trioroom.JoinRefused("come back as someone else", 4077)

    setattr(Closed, hook, Closed.refuse)
    async with open_test_server(app_of(Closed)) as server, open_peer(server, "/room/a") as peer:
        with pytest.raises(trioroom.ConnectionClosed) as closed:
            await peer.receive()
        assert (closed.value.code, closed.value.reason) == (4077, "come back as someone else")


# -- the joiner's state ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "plain", "json"),
    [
        ("text", "text", "text"),
        (b"\0\xff", b"\0\xff", "AP8="),
        ({"a": [1, None]}, '{"a":[1,null]}', {"a": [1, None]}),
        (0, "0", 0),
        ("", "", ""),
    ],
)
async def test_what_on_join_returns_reaches_the_joiner_first(
    state: object, plain: object, json: object, autojump_clock: MockClock
) -> None:
    class Stateful(trioroom.Room):
        async def on_join(self, member: trioroom.Member) -> object:
            await self.publish("someone came")
            member.send("you came")
            await wait_all_tasks_blocked()  # both are on their way
            return state

    async with open_test_server(app_of(Stateful)) as server:
        async with open_peer(server, "/room/a") as peer:
            assert await peer.receive() == plain
            assert sorted([str(await peer.receive()), str(await peer.receive())]) == ["someone came", "you came"]
        async with open_v1_peer(server) as v1:
            assert await v1.join("room/a") == {"type": "ok", "id": 1, "room": "room/a", "state": json}
            received = [await v1.receive() for _ in range(2)]
            assert {envelope["data"] for envelope in received} == {"someone came", "you came"}


async def test_without_a_state_nothing_comes_before_the_messages(autojump_clock: MockClock) -> None:
    async with open_test_server(app_of(Journal)) as server, open_peer(server, "/room/a") as one:
        async with open_peer(server, "/room/a") as two, open_v1_peer(server) as v1:
            assert await v1.join("room/a") == {"type": "ok", "id": 1, "room": "room/a"}
            await one.send("first")
            assert await two.receive() == "first"
            assert (await v1.receive())["data"] == "first"


async def test_what_others_publish_while_on_join_runs_follows_the_state_in_order(autojump_clock: MockClock) -> None:
    class Slow(trioroom.Room):
        async def on_join(self, member: trioroom.Member) -> object:
            if len(self.members) > 1:
                await trio.sleep(1)
            return f"state of {len(self.members)}"

    app = app_of(Slow)
    async with open_test_server(app) as server, open_peer(server, "/room/a") as first:
        assert await first.receive() == "state of 1"
        async with open_peer(server, "/room/a") as plain, open_v1_peer(server) as v1:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(v1.join, "room/a")
                await wait_all_tasks_blocked()
                for number in range(3):
                    await app.publish("room/a", f"{number}")
            assert [await plain.receive() for _ in range(4)] == ["state of 3", "0", "1", "2"]
            assert [(await v1.receive())["data"] for _ in range(3)] == ["0", "1", "2"]
            assert [await first.receive() for _ in range(3)] == ["0", "1", "2"]


# -- publishing ----------------------------------------------------------------------------------------


async def test_publishing_excludes_one_and_names_the_sender(autojump_clock: MockClock) -> None:
    class Choosing(trioroom.Room):
        async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
            await self.publish("to all")
            await self.publish("to all, signed", sender=member)
            await self.publish("to others", exclude=member)
            other = next(each for each in self.members if each is not member)
            await self.publish("to me", exclude=other, sender=member)

    async with open_test_server(app_of(Choosing)) as server:
        async with open_v1_peer(server) as one, open_v1_peer(server) as two:
            await one.join("room/a")
            await two.join("room/a")
            assert (await one.request("publish", room="room/a", data=None))["type"] == "ok"
            await wait_all_tasks_blocked()
            push = {"type": "message", "room": "room/a"}
            assert [await one.receive() for _ in range(3)] == [
                {**push, "data": "to all"},
                {**push, "data": "to all, signed", "from": one.id},
                {**push, "data": "to me", "from": one.id},
            ]
            assert [await two.receive() for _ in range(3)] == [
                {**push, "data": "to all"},
                {**push, "data": "to all, signed", "from": one.id},
                {**push, "data": "to others", "from": one.id},
            ]


async def test_publishing_what_is_no_data_raises_in_the_hook(autojump_clock: MockClock) -> None:
    class Careless(trioroom.Room):
        async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
            with pytest.raises(TypeError):
                await self.publish(object())  # type: ignore[arg-type]  # the mistake under test
            with pytest.raises(TypeError):
                member.send({"a": object()})  # type: ignore[dict-item]  # as above
            member.send("both refused")

    async with open_test_server(app_of(Careless)) as server, open_peer(server, "/room/a") as peer:
        await peer.send("go")
        assert await peer.receive() == "both refused"


async def test_on_open_may_publish_more_than_waits_for_the_fan_out(autojump_clock: MockClock) -> None:
    class Eager(trioroom.Room):
        async def on_open(self) -> None:
            for number in range(10):
                await self.publish(f"{number}")

        async def on_join(self, member: trioroom.Member) -> object:
            return "joined"

    settings = trioroom.Settings(room_channel_size=1)
    async with open_test_server(app_of(Eager), settings, timeout=5) as server, open_peer(server, "/room/a") as peer:
        assert await peer.receive() == "joined"


async def test_members_is_a_live_view_of_those_who_are_here(autojump_clock: MockClock) -> None:
    seen: list[tuple[str, int, bool, bool]] = []

    class Counting(trioroom.Room):
        def note(self, hook: str, member: trioroom.Member) -> None:
            seen.append((hook, len(self.members), member in self.members, member in list(self.members)))

        async def authorize(self, member: trioroom.Member) -> None:
            self.note("authorize", member)

        async def on_join(self, member: trioroom.Member) -> object:
            self.note("on_join", member)
            return None

        async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
            self.note("on_message", member)

        async def on_leave(self, member: trioroom.Member, reason: str) -> None:
            self.note("on_leave", member)
            assert "member" not in self.members

    async with open_test_server(app_of(Counting)) as server, open_peer(server, "/room/a") as peer:
        await peer.send("hi")
        await peer.close()
        await wait_all_tasks_blocked()
    assert seen == [
        ("authorize", 0, False, False),
        ("on_join", 1, True, True),
        ("on_message", 1, True, True),
        ("on_leave", 0, False, False),
    ]


async def test_rooms_of_other_names_hear_nothing(autojump_clock: MockClock) -> None:
    async with open_test_server(app_of(Journal)) as server:
        async with (
            open_peer(server, "/room/a") as a,
            open_peer(server, "/room/b") as b,
            open_peer(server, "/room/b") as c,
        ):
            await a.send("for nobody")
            await b.send("for c")
            assert await c.receive() == "for c"
