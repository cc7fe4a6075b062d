"""`Room.on_leave`: exactly once for every ``on_join`` that began, however the member went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from trioroom._wire.frames import Opcode
from trioroom.testing import Peer, V1Peer, open_peer, open_test_server, open_v1_peer

T = TypeVar("T")


class Record(list[T]):
    """What has happened, and a way to wait for it: in some tests the kernel has a part in when."""

    def __init__(self) -> None:
        self._changed = trio.Event()

    def append(self, entry: T) -> None:
        super().append(entry)
        self._changed.set()
        self._changed = trio.Event()

    async def reaches(self, count: int) -> None:
        while len(self) < count:
            await self._changed.wait()


joins: Record[trioroom.Member] = Record()
leaves: Record[tuple[trioroom.Member, str]] = Record()


@pytest.fixture(autouse=True)
def _fresh_records() -> Iterator[None]:
    yield
    joins.clear()
    leaves.clear()


def reasons() -> list[str]:
    """Why they left, after having checked that everyone who joined did so once."""
    assert Counter(member for member, _ in leaves) == Counter(joins)
    return [reason for _, reason in leaves]


class Tracked(trioroom.Room):
    """Does what its members tell it, and keeps a record of their coming and going."""

    async def on_join(self, member: trioroom.Member) -> object:
        joins.append(member)
        return None

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        match message.data:
            case "leave":
                member.leave("asked to")
            case "leave twice":
                member.leave("asked to")
                member.leave("asked again")
            case "all out":
                for each in self.members:
                    each.leave("all out")
            case "task leaves":
                member.start_soon(self.leave_from_task, member)
            case "raise":
                raise ValueError("on_message is broken")
            case "sleep":
                await trio.sleep_forever()
            case "flood":
                for _ in range(5_000):
                    member.send("x")

    async def leave_from_task(self, member: trioroom.Member) -> None:
        member.leave("its task said so")
        await trio.sleep_forever()

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        await self.on_message(member, message)
        return None

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        leaves.append((member, reason))
        await trio.lowlevel.checkpoint()
        member.leave("too late to matter")
        member.send("too late to arrive")


class JoiningFails(Tracked):
    async def on_join(self, member: trioroom.Member) -> object:
        await super().on_join(member)
        raise ValueError("on_join is broken")


class JoiningRefuses(Tracked):
    async def on_join(self, member: trioroom.Member) -> object:
        await super().on_join(member)
        raise trioroom.JoinRefused("full")


class JoiningPutsOut(Tracked):
    async def on_join(self, member: trioroom.Member) -> object:
        await super().on_join(member)
        member.leave("no, rather not")
        await trio.sleep(1)
        return "state"


class JoiningTakesForEver(Tracked):
    async def on_join(self, member: trioroom.Member) -> object:
        await super().on_join(member)
        return await trio.sleep_forever()


class JoiningTakesASecond(Tracked):
    async def on_join(self, member: trioroom.Member) -> object:
        await super().on_join(member)
        await trio.sleep(1)
        return None


def app_of(room_class: type[trioroom.Room]) -> trioroom.App:
    app = trioroom.App()
    app.route("room/{name}", room_class)
    return app


async def closed_with(peer: Peer) -> tuple[int, str]:
    """Code and reason of the server's close frame; messages before it are passed over."""
    try:
        while True:
            await peer.receive()
    except trioroom.ConnectionClosed as closed:
        return closed.code, closed.reason


# -- plain members ---------------------------------------------------------------------------------


def telling(text: str) -> Callable[[Peer], Awaitable[None]]:
    return lambda peer: peer.send(text)


async def close(peer: Peer) -> None:
    await peer.close(4000)


async def close_without_code(peer: Peer) -> None:
    await peer.send_frame(Opcode.CLOSE)


async def vanish(peer: Peer) -> None:
    await peer.stream.aclose()


async def break_the_protocol(peer: Peer) -> None:
    await peer.send_frame(0x3)


Way = Callable[[Peer], Awaitable[None]]
HOOK_FAILED = "{} failed; the server's log tells more"
RESERVED = "opcode 0x3 is reserved; send text, binary or control frames"

PLAIN_WAYS: list[tuple[Way, tuple[int, str] | None, str]] = [
    (close, (4000, ""), "closed with 4000"),
    (close_without_code, (1005, ""), "closed with 1005"),
    (vanish, None, "connection lost"),
    (break_the_protocol, (1002, RESERVED), RESERVED),
    (telling("leave"), (1000, "asked to"), "asked to"),
    (telling("leave twice"), (1000, "asked to"), "asked to"),
    (telling("all out"), (1000, "all out"), "all out"),
    (telling("task leaves"), (1000, "its task said so"), "its task said so"),
    (telling("raise"), (1011, HOOK_FAILED.format("on_message")), HOOK_FAILED.format("on_message")),
]


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize(("go", "close", "reason"), PLAIN_WAYS)
async def test_plain_member_leaves_once(go: Way, close: tuple[int, str] | None, reason: str, tcp: bool) -> None:
    async with open_test_server(app_of(Tracked), timeout=5) as server:
        async with open_peer(server, "/room/a", tcp=tcp) as peer:
            await joins.reaches(1)
            await go(peer)
            if close is not None:
                assert await closed_with(peer) == close
        await leaves.reaches(1)
        assert reasons() == [reason]


async def test_silent_member_leaves_once(autojump_clock: MockClock) -> None:
    settings = trioroom.Settings(ping_interval=5, ping_timeout=2, close_timeout=1)
    async with open_test_server(app_of(Tracked), settings) as server, open_peer(server, "/room/a") as peer:
        peer.answers = False
        await trio.sleep(10)
        assert reasons() == ["no pong within 2 s; answer pings or reconnect"]


async def test_slow_consumer_leaves_once(autojump_clock: MockClock) -> None:
    settings = trioroom.Settings(max_outbox_messages=100, close_timeout=1)
    async with open_test_server(app_of(Tracked), settings) as server, open_peer(server, "/room/a") as peer:
        await peer.send("flood")
        assert (await closed_with(peer))[0] == 4108
        await wait_all_tasks_blocked()
        assert reasons()[0].startswith("slow consumer: 100 messages")


JOINING_WAYS: list[tuple[type[Tracked], tuple[int, str], str]] = [
    (JoiningFails, (1011, HOOK_FAILED.format("on_join")), "on_join is broken"),
    (JoiningRefuses, (4001, "full"), "full"),
    (JoiningPutsOut, (4002, "no, rather not"), "no, rather not"),
]


@pytest.mark.parametrize(("room_class", "close", "reason"), JOINING_WAYS)
async def test_plain_joiner_that_does_not_get_in_leaves_once(
    room_class: type[Tracked], close: tuple[int, str], reason: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app_of(room_class)) as server, open_peer(server, "/room/a") as peer:
        assert await closed_with(peer) == close
        assert reasons() == [reason]


async def test_connection_lost_while_on_join_runs(autojump_clock: MockClock) -> None:
    async with open_test_server(app_of(JoiningTakesASecond)) as server:
        async with open_peer(server, "/room/a") as peer:
            await wait_all_tasks_blocked()
            await peer.stream.aclose()
        assert reasons() == ["connection lost"]
        async with open_peer(server, "/room/a") as peer:
            await wait_all_tasks_blocked()
            await peer.close(4000)
            assert await closed_with(peer) == (4000, "")
        assert reasons()[1:] == ["closed with 4000"]


# -- v1 members ------------------------------------------------------------------------------------


def asking(type: str, **fields: object) -> Callable[[V1Peer], Awaitable[None]]:
    return lambda v1: v1.send({"type": type, "id": 99, "room": "room/a", **fields})


async def close_v1(v1: V1Peer) -> None:
    await v1.peer.close(4000)


async def vanish_v1(v1: V1Peer) -> None:
    await v1.peer.stream.aclose()


async def leave_and_close(v1: V1Peer) -> None:
    await v1.send({"type": "leave", "id": 1, "room": "room/a"}, {"type": "leave", "id": 2, "room": "room/a"})
    await v1.peer.close()


async def be_kicked_and_close(v1: V1Peer) -> None:
    await asking("publish", data="leave")(v1)
    await v1.peer.close()


async def be_kicked_and_leave(v1: V1Peer) -> None:
    await v1.send(
        {"type": "publish", "room": "room/a", "data": "leave"},
        {"type": "leave", "id": 1, "room": "room/a"},
    )


V1_WAYS: list[tuple[Callable[[V1Peer], Awaitable[None]], str]] = [
    (close_v1, "closed with 4000"),
    (vanish_v1, "connection lost"),
    (leave_and_close, "left"),
    (be_kicked_and_close, "asked to"),
    (be_kicked_and_leave, "asked to"),
    (asking("leave"), "left"),
    (asking("publish", data="leave"), "asked to"),
    (asking("publish", data="leave twice"), "asked to"),
    (asking("publish", data="task leaves"), "its task said so"),
    (asking("publish", data="raise"), HOOK_FAILED.format("on_message")),
    (asking("call", data="leave"), "asked to"),
    (asking("call", data="raise"), HOOK_FAILED.format("on_call")),
]


@pytest.mark.parametrize(("go", "reason"), V1_WAYS, ids=range(len(V1_WAYS)))
async def test_v1_member_leaves_once(
    go: Callable[[V1Peer], Awaitable[None]], reason: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app_of(Tracked)) as server, open_v1_peer(server) as v1:
        await v1.join("room/a")
        await go(v1)
        await leaves.reaches(1)
    assert reasons() == [reason]


async def test_call_that_runs_for_ever_does_not_keep_its_member(autojump_clock: MockClock) -> None:
    async with open_test_server(app_of(Tracked)) as server, open_v1_peer(server) as v1:
        await v1.join("room/a")
        await v1.send({"type": "call", "id": "c", "room": "room/a", "data": "sleep"})
        await vanish_v1(v1)
        await leaves.reaches(1)
        assert reasons() == ["connection lost"]


async def test_connection_in_many_rooms_leaves_each_of_them_once(autojump_clock: MockClock) -> None:
    async with open_test_server(app_of(Tracked)) as server:
        async with open_v1_peer(server) as v1:
            for number in range(20):
                await v1.join(f"room/{number}")
            await v1.request("leave", room="room/3")
            await v1.request("publish", room="room/4", data="leave")
        await leaves.reaches(20)
        assert sorted(reasons()) == ["asked to", *["connection lost"] * 18, "left"]


@pytest.mark.parametrize(("room_class", "reason"), [(way[0], way[2]) for way in JOINING_WAYS])
async def test_v1_joiner_that_does_not_get_in_leaves_once(
    room_class: type[Tracked], reason: str, autojump_clock: MockClock
) -> None:
    async with open_test_server(app_of(room_class)) as server, open_v1_peer(server) as v1:
        await v1.send({"type": "join", "id": 1, "room": "room/a"})
        await leaves.reaches(1)
        assert reasons() == [reason]


async def test_member_that_is_put_out_and_joins_again_at_once_is_a_new_member(autojump_clock: MockClock) -> None:
    async with open_test_server(app_of(Tracked)) as server, open_v1_peer(server) as v1:
        await v1.join("room/a")
        await v1.send(
            {"type": "publish", "room": "room/a", "data": "leave"},
            {"type": "join", "id": "again", "room": "room/a"},
        )
        while (answer := await v1.receive_answer("again"))["type"] == "error":  # until it is out
            await v1.send({"type": "join", "id": "again", "room": "room/a"})
        assert answer["type"] == "ok"
        assert (await v1.receive())["type"] == "kicked"
        assert len(joins) == 2
        assert len(leaves) == 1
        async with open_peer(server, "/room/a") as other:
            await joins.reaches(3)
            await joins[-1].room.publish("for both")
            assert await other.receive() == "for both"
            assert (await v1.receive())["data"] == "for both"
        assert (await v1.request("leave", room="room/a"))["type"] == "ok"
    assert sorted(reasons()) == ["asked to", "connection lost", "left"]


# -- the server goes -----------------------------------------------------------------------------------


async def stay(server: trioroom.Server, tcp: bool, closed: list[tuple[int, str]]) -> None:
    """Be a plain member until the server closes."""
    async with open_peer(server, "/room/a", tcp=tcp) as peer:
        closed.append(await closed_with(peer))


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("room_class", [Tracked, JoiningTakesForEver])
async def test_draining_makes_members_and_joiners_leave_once(room_class: type[Tracked], tcp: bool) -> None:
    settings = trioroom.Settings(close_timeout=0.1)
    closed: list[tuple[int, str]] = []
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            async with open_test_server(app_of(room_class), settings) as server:
                for _ in range(3):
                    nursery.start_soon(stay, server, tcp, closed)
                await joins.reaches(3)
            assert reasons() == ["the server drains; reconnect"] * 3
    assert closed == [(4101, "the server drains; reconnect")] * 3


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("room_class", [Tracked, JoiningTakesForEver])
async def test_cancelling_makes_members_and_joiners_leave_once(room_class: type[Tracked], tcp: bool) -> None:
    closed: list[tuple[int, str]] = []
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with open_test_server(app_of(room_class)) as server:
                    for _ in range(3):
                        nursery.start_soon(stay, server, tcp, closed)
                    await joins.reaches(3)
                    scope.cancel()
                    await trio.sleep_forever()
            assert reasons() == ["the server stops"] * 3
    assert len(closed) == 3
