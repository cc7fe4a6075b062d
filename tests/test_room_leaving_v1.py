"""`Room.on_leave` for members by protocol v1: exactly once for every room, however the member went."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from trio.testing import MockClock

from tests.conftest import HOOK_FAILED, JOINING_WAYS, Tracked, app_of, joins, leaves, reasons
from trioroom.testing import V1Peer, open_peer, open_test_server, open_v1_peer

pytestmark = pytest.mark.usefixtures("fresh_records")


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
