"""Where the server is: the sentinels are asked in turn, not believed blindly, and asked again."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints

from tests.backplane.redis.fake_server import FakeNetwork, FakeServer, array, bulk, connect, error
from trioroom.backplane.redis import sources
from trioroom.backplane.redis.location import Endpoint, Login, parse_location
from trioroom.backplane.redis.sources import FixedSource, SentinelSource
from trioroom.backplane.supervision import LinkLost

URL = "redis+sentinel://u:p@fake:1,fake:2,fake:3/rooms?sentinel_username=su&sentinel_password=sp"
MASTER = Endpoint("master", 10)


def address(endpoint: Endpoint) -> bytes:
    return array(bulk(endpoint.host.encode()), bulk(b"%d" % endpoint.port))


def tell(server: FakeServer, reply: bytes) -> None:
    server.answers[b"SENTINEL"] = lambda _: reply


@asynccontextmanager
async def open_scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[SentinelSource, FakeNetwork]]:
    """Three sentinels that agree."""
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery)
        monkeypatch.setattr(sources, "open_connection", network.open_connection)
        for port in (1, 2, 3):
            tell(network.add(port), address(MASTER))
        yield SentinelSource(parse_location(URL)), network
        nursery.cancel_scope.cancel()


async def test_server_at_a_fixed_place_is_not_questioned(autojump_clock: MockClock) -> None:
    source = FixedSource(MASTER)
    assert await source.locate() == MASTER
    connection, _ = connect()
    await source.check(connection)
    with trio.move_on_after(1_000) as watching:
        await source.watch(MASTER)
    assert watching.cancelled_caught


async def test_first_sentinel_that_answers_is_asked_with_the_login_of_sentinels(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as (source, network):
        with assert_checkpoints():
            assert await source.locate() == MASTER
        assert network.opened == [(Endpoint("fake", 1), Login("su", "sp"))]
        assert network.servers[1].log == [[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"rooms"]]
        network.remove(1)
        tell(network.servers[2], b"*-1\r\n")
        assert await source.locate() == MASTER
        assert [endpoint.port for endpoint, _ in network.opened] == [1, 1, 2, 3]


async def test_silent_sentinel_holds_up_for_connect_timeout(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as (source, network):
        network.servers[1].latency = math.inf
        assert await source.locate() == MASTER
        assert trio.current_time() == pytest.approx(2)


async def test_what_each_sentinel_said_is_told_when_none_knows(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as (source, network):
        network.servers[1].latency = math.inf
        tell(network.servers[2], b"_\r\n")
        tell(network.servers[3], error("NOPERM no"))
        with pytest.raises(LinkLost) as lost:
            await source.locate()
        assert str(lost.value) == (
            "no sentinel tells where 'rooms' is (fake:1: no answer within 2 s; "
            "fake:2: it knows no master called 'rooms'; fake:3: NOPERM no)"
        )


@pytest.mark.parametrize("role", [b"slave", b"sentinel"])
async def test_only_a_master_passes(role: bytes) -> None:
    source = SentinelSource(parse_location(URL))
    connection, peer = connect()
    await peer.say(array(bulk(b"master"), b":0\r\n", array()))
    await source.check(connection)
    await peer.say(array(bulk(role), bulk(b"x")))
    with pytest.raises(LinkLost, match=f"^it is a {role.decode()} and not the master; a failover is under way$"):
        await source.check(connection)
    await peer.say(error("NOPERM no"))
    with pytest.raises(LinkLost, match="NOPERM no"):
        await source.check(connection)


async def test_another_master_is_noticed_within_an_interval_and_silent_sentinels_are_no_news(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_scene(monkeypatch) as (source, network):
        with trio.move_on_after(10):
            await source.watch(MASTER)
        assert len(network.opened) == 9  # once a second, and no more than one of them
        servers = [network.remove(port) for port in (1, 2, 3)]
        with trio.move_on_after(10) as watching:
            await source.watch(MASTER)
        assert watching.cancelled_caught
        for port, server in enumerate(servers, 1):
            network.servers[port] = server
            tell(server, address(Endpoint("::1", 11)))
        begin = trio.current_time()
        with pytest.raises(LinkLost, match=r"^the sentinels say that \[::1\]:11 is the master now$"):
            await source.watch(MASTER)
        assert trio.current_time() - begin == pytest.approx(1)
