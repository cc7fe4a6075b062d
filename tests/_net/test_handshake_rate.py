"""How many may come in a second: refused at accept, before anything of them is read."""

from __future__ import annotations

import ssl
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme
from trio.testing import MockClock, memory_stream_pair

import trioroom
from tests._net.test_entrance import answer_to, connecting, retry_after
from trioroom._core.admission import Verdict
from trioroom.testing import open_peer, open_test_server

if TYPE_CHECKING:
    from tests._net.conftest import Lobby, Upgrade

needs_addresses = pytest.mark.skipif(
    sys.platform != "linux", reason="needs several addresses on the loopback interface"
)


def settings_of(**changed: Any) -> trioroom.Settings:
    return trioroom.Settings(drain_timeout=1.0, close_timeout=1.0, **changed)


async def test_more_than_the_burst_are_told_when_to_come_back_and_then_get_in(
    lobby: Lobby, autojump_clock: MockClock
) -> None:
    async with open_test_server(lobby.app, settings_of(max_handshake_rate=0.1, handshake_burst=2), tcp=True) as server:
        for _ in range(2):
            async with connecting(server) as stream:
                assert b" 101 " in await answer_to(stream)
        waits = []
        for _ in range(40):
            async with connecting(server) as stream:
                head, _, body = (await answer_to(stream)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert body == b"more come to this server than max_handshake_rate allows; try again later\n"
            waits.append(retry_after(head))
        assert server._overview.admission.refused == {Verdict.RATE: 40}
        assert min(waits) >= 10 - trio.current_time()
        assert max(waits) <= 16
        assert len(set(waits)) > 2, "they would all come back at once"
        await trio.sleep(max(waits))
        async with connecting(server) as stream:
            assert b" 101 " in await answer_to(stream)


async def test_refused_at_accept_without_a_word_from_the_peer(lobby: Lobby, autojump_clock: MockClock) -> None:
    async with open_test_server(lobby.app, settings_of(max_handshake_rate=0.01, handshake_burst=1), tcp=True) as server:
        async with connecting(server) as first, connecting(server) as second:
            assert b" 503 " in await answer_to(second, b"")
            assert b" 101 " in await answer_to(first)


@needs_addresses
async def test_address_that_comes_too_often_is_refused_and_others_are_not(lobby: Lobby) -> None:
    settings = settings_of(
        max_handshake_rate_per_address=0.001, handshake_burst_per_address=2, max_handshake_rate=0.001, handshake_burst=5
    )
    async with open_test_server(lobby.app, settings, tcp=True) as server:
        answers = []
        for _ in range(10):
            async with connecting(server, "127.0.0.2") as stream:
                answers.append(await answer_to(stream))
        assert [b" 101 " in answer for answer in answers] == [True] * 2 + [False] * 8
        assert b"more come from your address than max_handshake_rate_per_address allows" in answers[-1]
        assert retry_after(answers[-1]) > 900
        assert server._overview.admission.refused == {Verdict.ADDRESS_RATE: 8}
        async with connecting(server, "127.0.0.3") as stream:
            assert b" 101 " in await answer_to(stream), "nothing of the tokens of all is used up by the others"


async def test_address_behind_a_proxy_comes_too_often(lobby: Lobby, upgrade: Upgrade) -> None:
    settings = settings_of(
        max_handshake_rate_per_address=0.001, handshake_burst_per_address=1, trusted_proxies=("127.0.0.1",)
    )

    def asked(number: int) -> bytes:
        return upgrade(headers=(f"X-Forwarded-For: 192.0.2.{number}",))

    async with open_test_server(lobby.app, settings, tcp=True) as server:
        for number, code in ((1, b" 101 "), (2, b" 101 "), (1, b" 503 "), (3, b" 101 "), (2, b" 503 ")):
            async with connecting(server) as stream:
                answer = await answer_to(stream, asked(number))
                assert code in answer
        assert retry_after(answer) > 900
        assert server._overview.admission.refused == {Verdict.ADDRESS_RATE: 2}


async def test_over_tls_the_connection_is_closed_before_a_handshake(lobby: Lobby) -> None:
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert("test").configure_cert(serving)
    settings = settings_of(max_handshake_rate=0.001, handshake_burst=1)
    with trio.fail_after(10):
        async with trioroom.open_server(lobby.app, port=0, settings=settings, ssl_context=serving) as server:
            async with connecting(server), connecting(server) as late:
                assert await late.receive_some() == b""
            assert server._overview.admission.refused == {Verdict.RATE: 1}


async def test_burst_of_refusals_is_one_line_in_the_log(lobby: Lobby, caplog: pytest.LogCaptureFixture) -> None:
    async with open_test_server(lobby.app, settings_of(max_handshake_rate=0.5, handshake_burst=1), tcp=True) as server:
        for _ in range(5):
            async with connecting(server) as stream:
                await answer_to(stream)
    assert [record.getMessage() for record in caplog.records] == [
        "turning away 127.0.0.1 and others that come now: max_handshake_rate=0.5 reached"
    ]


async def test_peers_by_other_ways_than_the_listener_count_too(lobby: Lobby, upgrade: Upgrade) -> None:
    async with open_test_server(lobby.app, settings_of(max_connections=1)) as server:
        async with open_peer(server, "/echo/a"):
            ours, theirs = memory_stream_pair()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.serve_stream, theirs)
                assert b" 503 " in await answer_to(ours, upgrade())
            assert server.statistics().refused_connections == 1
        async with open_peer(server, "/echo/a") as peer:
            await peer.send("there is a place again")
            assert await peer.receive() == "there is a place again"
