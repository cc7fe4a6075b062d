"""What takes minutes and hours passes at once on the virtual clock, in memory, as users test it."""

from __future__ import annotations

import re
import time

import pytest
import trio
from trio.testing import MockClock

import trioroom
from tests.conftest import app_of, close_code
from tests.test_layers import PACKAGE
from trioroom.testing import V1Peer, open_peer, open_test_server, open_v1_peer

MEASURING = {"_net/census.py", "_net/fanout.py", "_net/timing.py", "_net/vitals.py", "debug.py"}
"""They tell how long something took, and decide nothing by it."""
TELLING_THE_TIME = {"_net/authentication.py", "_net/snapshot.py"}
"""They need to know what time it is outside: a token says when it expires. From then on Trio's clock counts."""
ELSEWHERE = ("bench/", "cli/", "demo/", "backplane/kafka/")
"""Other processes' clocks have a say there, or there are people who watch."""


def test_only_trios_clock_decides() -> None:
    importing = re.compile(r"^\s*(import time\b|from time import)", re.M)
    paths = [path for path in PACKAGE.rglob("*.py") if importing.search(path.read_text("utf-8"))]
    users = {path.relative_to(PACKAGE).as_posix() for path in paths}
    assert {path for path in users if not path.startswith(ELSEWHERE)} == MEASURING | TELLING_THE_TIME


async def stay(server: trioroom.Server, path: str, codes: list[int]) -> None:
    async with open_peer(server, path) as peer:
        codes.append(await close_code(peer))


async def test_crowd_is_drained_at_its_pace(autojump_clock: MockClock) -> None:
    members = 1_000
    settings = trioroom.Settings(reconnect_rate=50, drain_timeout=60, close_timeout=5)
    codes: list[int] = []
    async with trio.open_nursery() as nursery:
        async with open_test_server(app_of(trioroom.Room), settings) as server:
            for _ in range(members):
                nursery.start_soon(stay, server, "/room/a", codes)
            await trio.sleep(1)
            assert server.statistics().members == members
            began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(members / 50, rel=0.1)
    assert codes == [trioroom.CloseCode.DRAIN] * members


async def test_minutes_of_heartbeats(autojump_clock: MockClock) -> None:
    settings = trioroom.Settings(ping_interval=25, ping_timeout=10)
    codes: list[int] = []
    async with open_test_server(app_of(trioroom.Room), settings) as server, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(stay, server, "/room/a", codes)
        async with open_peer(server, "/room/a") as silent:
            silent.answers = False
            began = trio.current_time()
            assert await close_code(silent) == trioroom.CloseCode.PING_TIMEOUT
            assert trio.current_time() - began <= 36
        await trio.sleep(300)
        assert (server.connection_count, codes) == (20, [])
        nursery.cancel_scope.cancel()


class News(trioroom.Room):
    history = trioroom.History(size=100, ttl=300)


@pytest.mark.parametrize(("seconds", "recovered"), [(299, True), (301, False)])
async def test_history_expires(seconds: float, recovered: bool, autojump_clock: MockClock) -> None:
    app = app_of(News)
    async with open_test_server(app) as server:
        async with open_v1_peer(server) as reader:
            position = (await reader.join("room/a"))["position"]
        await app.publish("room/a", "news")
        await trio.sleep(seconds)
        async with open_v1_peer(server) as reader:
            answer = await reader.request("join", room="room/a", position=position)
            assert answer["recovered"] is recovered


class Lounge(trioroom.Room):
    presence = trioroom.Presence(grace=30, interval=1)

    async def on_join(self, member: trioroom.Member) -> None:
        member.user = member.token or member.id


async def join_as(peer: V1Peer, user: str) -> None:
    await peer.request("auth", token=user)
    await peer.join("room/a")


async def users(peer: V1Peer) -> list[str]:
    return [member["user"] for member in (await peer.request("who", room="room/a"))["members"]]


async def test_grace_of_presence(autojump_clock: MockClock) -> None:
    async with open_test_server(app_of(Lounge)) as server, open_v1_peer(server) as ann:
        await join_as(ann, "ann")
        async with open_v1_peer(server) as bob:
            await join_as(bob, "bob")
            await trio.sleep(2)
            assert await users(ann) == ["ann", "bob"]
        await trio.sleep(29)
        assert await users(ann) == ["ann", "bob"]
        await trio.sleep(3)
        assert await users(ann) == ["ann"]


async def test_token_expires(autojump_clock: MockClock) -> None:
    async def authenticate(credentials: trioroom.Credentials) -> trioroom.Identity:
        return trioroom.Identity("ann", expires_at=time.time() + 3_600)

    app = trioroom.App(authenticate=authenticate)
    app.route("room/{name}", trioroom.Room)
    async with open_test_server(app) as server, open_peer(server, "/room/a?token=x") as peer:
        began = trio.current_time()
        assert await close_code(peer) == trioroom.CloseCode.TOKEN_EXPIRED
        assert trio.current_time() - began == pytest.approx(3_600, abs=5)


async def test_rate_of_messages(autojump_clock: MockClock) -> None:
    settings = trioroom.Settings(max_message_rate=1, message_burst=5)
    async with open_test_server(app_of(trioroom.Room), settings) as server:
        async with open_peer(server, "/room/a") as steady:
            for _ in range(100):
                await steady.send("x")
                await trio.sleep(1)
            assert server.connection_count == 1
        async with open_peer(server, "/room/a") as hasty:
            for _ in range(20):
                await hasty.send("x")
            assert await close_code(hasty) == trioroom.CloseCode.POLICY_VIOLATION
