"""`Room.on_leave`: exactly once for every ``on_join`` that began, however the member went."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from tests.conftest import HOOK_FAILED, JOINING_WAYS, Tracked, app_of, closed_with, joins, leaves, reasons
from trioroom._wire.frames import Opcode
from trioroom.testing import Peer, open_peer, open_test_server

pytestmark = pytest.mark.usefixtures("fresh_records")


class JoiningTakesForEver(Tracked):
    async def on_join(self, member: trioroom.Member) -> object:
        await super().on_join(member)
        return await trio.sleep_forever()


class JoiningTakesASecond(Tracked):
    async def on_join(self, member: trioroom.Member) -> object:
        await super().on_join(member)
        await trio.sleep(1)
        return None


# -- members that are in ---------------------------------------------------------------------------


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
    async with open_test_server(app_of(Tracked), timeout=5, tcp=tcp) as server:
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


# -- members that are not in yet -------------------------------------------------------------------


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


# -- the server goes -------------------------------------------------------------------------------


async def stay(server: trioroom.Server, tcp: bool, closed: list[tuple[int, str]]) -> None:
    """Be a plain member until the server closes."""
    async with open_peer(server, "/room/a", tcp=tcp) as peer:
        closed.append(await closed_with(peer))


async def drain_with_guests(room_class: type[Tracked], tcp: bool) -> None:
    settings = trioroom.Settings(close_timeout=0.5)
    closed: list[tuple[int, str]] = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            async with open_test_server(app_of(room_class), settings, tcp=tcp) as server:
                for _ in range(3):
                    nursery.start_soon(stay, server, tcp, closed)
                await joins.reaches(3)
            assert reasons() == ["the server drains; reconnect"] * 3
    assert closed == [(4101, "the server drains; reconnect")] * 3


async def cancel_with_guests(room_class: type[Tracked], tcp: bool) -> None:
    closed: list[tuple[int, str]] = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with open_test_server(app_of(room_class), tcp=tcp) as server:
                    for _ in range(3):
                        nursery.start_soon(stay, server, tcp, closed)
                    await joins.reaches(3)
                    scope.cancel()
                    await trio.sleep_forever()
            assert reasons() == ["the server stops"] * 3
    assert len(closed) == 3


@pytest.mark.parametrize("room_class", [Tracked, JoiningTakesForEver])
@pytest.mark.parametrize("end", [drain_with_guests, cancel_with_guests])
async def test_server_that_goes_makes_members_and_joiners_leave_once(
    end: Callable[[type[Tracked], bool], Awaitable[None]], room_class: type[Tracked], autojump_clock: MockClock
) -> None:
    await end(room_class, False)


@pytest.mark.parametrize("room_class", [Tracked, JoiningTakesForEver])
@pytest.mark.parametrize("end", [drain_with_guests, cancel_with_guests])
async def test_server_that_goes_makes_members_and_joiners_on_real_sockets_leave_once(
    end: Callable[[type[Tracked], bool], Awaitable[None]], room_class: type[Tracked]
) -> None:
    await end(room_class, True)
