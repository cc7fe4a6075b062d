"""`Member`: what a hook may do with the one it was called for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from tests.conftest import app_of
from trioroom._wire.message import Data
from trioroom.testing import Peer, open_peer, open_test_server, open_v1_peer

Handler = Callable[[trioroom.Member, trioroom.Message], Awaitable[object]]


class Exposed(trioroom.Room):
    """Hands what its hooks get to the test."""

    met: list[trioroom.Member]

    async def on_open(self) -> None:
        type(self).met = []

    async def on_join(self, member: trioroom.Member) -> object:
        self.met.append(member)
        return None


def exposed_app() -> tuple[trioroom.App, type[Exposed]]:
    """A class of its own for each test, and so a list of its own."""
    room_class = type("Exposed", (Exposed,), {"met": []})
    return app_of(room_class), room_class


async def close_of(peer: Peer) -> tuple[int, str]:
    """Code and reason of the server's close frame, which comes next."""
    with pytest.raises(trioroom.ConnectionClosed) as closed:
        await peer.receive()
    return closed.value.code, closed.value.reason


# -- who it is -------------------------------------------------------------------------------------------


async def test_ids_are_unique_and_tell_the_same_peer_in_all_its_rooms(autojump_clock: MockClock) -> None:
    app, room_class = exposed_app()
    async with open_test_server(app) as server:
        async with open_v1_peer(server) as v1, open_peer(server, "/room/a"), open_peer(server, "/room/a"):
            await v1.join("room/a")
            ids = [member.id for member in room_class.met]
            assert len(set(ids)) == 3
            assert ids[2] == v1.id
            await v1.join("room/b")
            (in_b,) = room_class.met
            assert in_b.id == v1.id
            assert in_b.room.name == "room/b"
            assert repr(in_b) == f"<Member {v1.id} of 'room/b'>"


async def test_user_and_info_are_checked_where_they_are_set(autojump_clock: MockClock) -> None:
    app, room_class = exposed_app()
    async with open_test_server(app) as server, open_peer(server, "/room/a"):
        await wait_all_tasks_blocked()
        (member,) = room_class.met
        assert (member.user, member.info) == (member.id, None)
        member.user, member.info = "ann", {"name": "Ann"}
        with pytest.raises(ValueError, match="0 characters"):
            member.user = ""
        with pytest.raises(TypeError, match="must be a string"):
            member.user = 7  # type: ignore[assignment]  # wrong on purpose
        with pytest.raises(ValueError, match="exceeds 1024"):
            member.info = "x" * 1_023
        with pytest.raises(TypeError):
            member.info = object()
        assert (member.user, member.info) == ("ann", {"name": "Ann"})
        with pytest.raises(RuntimeError, match="presence = True"):
            member.room.who()


async def test_request_and_token_are_there_for_authorize(autojump_clock: MockClock) -> None:
    seen: list[object] = []

    class Guarded(trioroom.Room):
        async def authorize(self, member: trioroom.Member) -> None:
            seen.append((member.request.path, member.request.query, member.request.header("host"), member.token))
            if member.token != "s3cret":
                raise trioroom.JoinRefused("wrong token")

    async with open_test_server(app_of(Guarded)) as server:
        async with open_peer(server, "/room/a?token=no") as plain:
            assert await close_of(plain) == (4001, "wrong token")
        async with open_v1_peer(server, "/any%20where?x=1") as v1:
            assert (await v1.request("join", room="room/a"))["code"] == "denied"
            for token in ("wrong", "s3cret"):
                assert await v1.request("auth", token=token) == {"type": "ok", "id": v1.last_id}
                joined = await v1.request("join", room="room/a")
            assert joined["type"] == "ok"
    assert seen == [
        ("/room/a", "token=no", "test", None),
        *[("/any where", "x=1", "test", token) for token in (None, "wrong", "s3cret")],
    ]


async def test_identity_says_who_a_member_is_until_the_room_does() -> None:
    async def hook(credentials: trioroom.Credentials) -> trioroom.Identity:
        return trioroom.Identity("ann", {"name": "Ann"}, claims={"role": "admin"})

    class Renamed(Exposed):
        async def authorize(self, member: trioroom.Member) -> None:
            if self.name == "room/b":
                member.user, member.info = "somebody", None

    app = trioroom.App(authenticate=hook)
    app.route("room/{name}", Renamed)
    seen = []
    async with open_test_server(app) as server, open_v1_peer(server) as v1:
        for room in ("room/a", "room/b"):
            await v1.join(room)
            (member,) = Renamed.met
            assert member.identity is not None
            seen.append((member.user, member.info, member.identity.user, member.identity.claims["role"]))
    assert seen == [("ann", {"name": "Ann"}, "ann", "admin"), ("somebody", None, "ann", "admin")]


# -- send ------------------------------------------------------------------------------------------------


async def test_send_reaches_this_member_alone_in_order(autojump_clock: MockClock) -> None:
    app, room_class = exposed_app()
    values: list[Data] = ["text", b"\0\xff", {"a": [1, None, "ä"]}, 1.5, None, ""]
    async with open_test_server(app) as server:
        async with open_peer(server, "/room/a") as plain, open_peer(server, "/room/a") as other:
            async with open_v1_peer(server, subprotocol="trioroom.v1.msgpack") as v1:
                await v1.join("room/a")
                for member in (room_class.met[0], room_class.met[2]):
                    for value in values:
                        member.send(value)
                received = [await plain.receive() for _ in values]
                assert received == ["text", b"\0\xff", '{"a":[1,null,"ä"]}', "1.5", "null", ""]
                pushes = [await v1.receive() for _ in values]
                assert pushes == [{"type": "message", "room": "room/a", "data": value} for value in values]
                room_class.met[1].send("last")
                assert await other.receive() == "last"


async def test_a_member_that_is_over_is_sent_nothing_and_starts_nothing(autojump_clock: MockClock) -> None:
    app, room_class = exposed_app()
    async with open_test_server(app) as server, open_v1_peer(server) as v1:
        await v1.join("room/a")
        (member,) = room_class.met
        await v1.request("leave", room="room/a")
        member.send("too late")
        member.leave("too late")
        with pytest.raises(trio.ClosedResourceError, match="has left; start no tasks for it"):
            member.start_soon(trio.sleep_forever)
        await v1.join("room/a")
        room_class.met[0].send("in time")
        assert (await v1.receive())["data"] == "in time"


async def test_a_member_that_has_not_begun_to_join_is_sent_nothing_and_starts_nothing(
    autojump_clock: MockClock,
) -> None:
    class Eager(trioroom.Room):
        async def authorize(self, member: trioroom.Member) -> None:
            member.send("too early")
            member.leave("too early")
            with pytest.raises(trio.ClosedResourceError):
                member.start_soon(trio.sleep_forever)

        async def on_join(self, member: trioroom.Member) -> object:
            return "state"

    async with open_test_server(app_of(Eager)) as server, open_peer(server, "/room/a") as peer:
        assert await peer.receive() == "state"


async def test_send_does_not_wait_for_a_peer_that_reads_nothing(autojump_clock: MockClock) -> None:
    app, room_class = exposed_app()
    settings = trioroom.Settings(max_outbox_bytes=1_000_000, close_timeout=1)
    async with open_test_server(app, settings) as server, open_peer(server, "/room/a", tcp=False) as peer:
        await wait_all_tasks_blocked()
        for _ in range(20):
            room_class.met[0].send("x" * 100_000)
        code, reason = 0, ""
        try:
            while True:
                await peer.receive()
        except trioroom.ConnectionClosed as closed:
            code, reason = closed.code, closed.reason
        assert (code, reason.partition(":")[0]) == (4108, "slow consumer")


# -- start_soon ------------------------------------------------------------------------------------------


async def test_tasks_run_until_the_member_leaves_and_end_before_on_leave(autojump_clock: MockClock) -> None:
    journal: list[str] = []

    class Working(trioroom.Room):
        async def on_join(self, member: trioroom.Member) -> object:
            member.start_soon(self.work, member, "one")
            member.start_soon(self.work, member, "two")
            await trio.sleep(1)
            return "state"

        async def work(self, member: trioroom.Member, name: str) -> None:
            member.send(f"{name} works")
            try:
                await trio.sleep_forever()
            finally:
                journal.append(f"{name} ends")

        async def on_leave(self, member: trioroom.Member, reason: str) -> None:
            journal.append("on_leave")

    async with open_test_server(app_of(Working)) as server, open_v1_peer(server) as v1:
        answer = await v1.join("room/a")
        assert answer["state"] == "state"
        assert {(await v1.receive())["data"] for _ in range(2)} == {"one works", "two works"}
        assert journal == []
        await v1.request("leave", room="room/a")
        assert sorted(journal[:2]) == ["one ends", "two ends"]
        assert journal[2:] == ["on_leave"]


@pytest.mark.parametrize("end", ["close", "vanish"])
async def test_tasks_end_with_the_connection(end: str, autojump_clock: MockClock) -> None:
    journal: list[str] = []

    class Working(trioroom.Room):
        async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
            member.start_soon(self.work)
            member.send("started")

        async def work(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                journal.append("ends")

        async def on_leave(self, member: trioroom.Member, reason: str) -> None:
            journal.append(reason)

    async with open_test_server(app_of(Working)) as server:
        async with open_peer(server, "/room/a") as peer:
            await peer.send("go")
            assert await peer.receive() == "started"
            if end == "close":
                await peer.close(4000)
                assert await close_of(peer) == (4000, "")
        await wait_all_tasks_blocked()
        assert journal == ["ends", "closed with 4000" if end == "close" else "connection lost"]


async def test_task_that_ends_by_itself_leaves_the_others_and_more_can_start(autojump_clock: MockClock) -> None:
    class Working(trioroom.Room):
        async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
            member.start_soon(self.work, member, message.data)

        async def work(self, member: trioroom.Member, delay: object) -> None:
            assert isinstance(delay, str)
            await trio.sleep(float(delay))
            member.send(delay)

    async with open_test_server(app_of(Working)) as server, open_peer(server, "/room/a") as peer:
        for delay in ("3", "1"):
            await peer.send(delay)
        assert await peer.receive() == "1"
        await peer.send("0.5")
        assert [await peer.receive() for _ in range(2)] == ["0.5", "3"]


# -- leave -----------------------------------------------------------------------------------------------


async def test_leave_closes_a_plain_connection_with_1000(autojump_clock: MockClock) -> None:
    app, room_class = exposed_app()
    async with open_test_server(app) as server, open_peer(server, "/room/a") as peer:
        await wait_all_tasks_blocked()
        (member,) = room_class.met
        member.send("before")
        member.leave("enough")
        member.send("after")
        assert await peer.receive() == "before"
        assert await close_of(peer) == (1000, "enough")


async def test_leave_tells_a_v1_member_after_on_leave_and_keeps_its_connection(autojump_clock: MockClock) -> None:
    class Leaving(Exposed):
        async def on_leave(self, member: trioroom.Member, reason: str) -> None:
            await trio.sleep(0.5)
            left.append(reason)

    left: list[str] = []
    async with open_test_server(app_of(Leaving)) as server, open_v1_peer(server) as v1:
        await v1.join("room/b")
        await v1.join("room/a")
        (member,) = Leaving.met
        member.leave("enough")
        assert await v1.receive() == {"type": "kicked", "room": "room/a", "code": 4002, "reason": "enough"}
        assert left == ["enough"]
        assert (await v1.request("publish", room="room/a", data="x"))["code"] == "not_joined"
        assert (await v1.request("publish", room="room/b", data="x"))["type"] == "ok"


async def test_leave_while_on_join_runs_refuses_the_join(autojump_clock: MockClock) -> None:
    class Choosy(trioroom.Room):
        async def on_join(self, member: trioroom.Member) -> object:
            member.send("never arrives")
            member.leave("not today")
            await trio.sleep(1)
            return "state"

    async with open_test_server(app_of(Choosy)) as server:
        async with open_peer(server, "/room/a") as peer:
            assert await close_of(peer) == (4002, "not today")
        async with open_v1_peer(server) as v1:
            refused = await v1.request("join", room="room/a")
            assert (refused["code"], refused["message"]) == ("denied", "not today")
            assert (await v1.request("join", room="room/a"))["code"] == "denied"
