"""Peers behind proxies: who may tell whom it speaks for, and what counts by that. Over sockets, which have addresses.

The loopback interface of Linux has many addresses: 127.1.0.1 is a proxy that is trusted here, others are anybody.
"""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from trioroom._core.admission import Verdict
from trioroom.testing import open_peer, open_test_server

if TYPE_CHECKING:
    from tests._net.conftest import Lobby, Upgrade

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs several addresses on the loopback interface")

PROXY, STRANGER = "127.1.0.1", "127.0.0.2"
CLIENT = "192.0.2.1"
SIGNATURE = bytes.fromhex("0D0A0D0A000D0A515549540A")
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n"


def settings_of(**changed: Any) -> trioroom.Settings:
    chosen = {"trusted_proxies": ("127.1.0.0/16",), "drain_timeout": 1.0, "close_timeout": 1.0, **changed}
    return trioroom.Settings(**chosen)


def v1(address: str = CLIENT) -> bytes:
    return f"PROXY TCP4 {address} 127.0.0.1 4711 80\r\n".encode()


def v2(address: str = CLIENT) -> bytes:
    body = socket.inet_aton(address) + socket.inet_aton("127.0.0.1") + struct.pack(">HH", 4711, 80) + b"\x04\0\x02ab"
    return SIGNATURE + struct.pack(">BBH", 0x21, 0x11, len(body)) + body


LOCAL = SIGNATURE + b"\x20\0\0\0"


@asynccontextmanager
async def connecting(server: trioroom.Server, source: str) -> AsyncIterator[trio.SocketStream]:
    """One that comes from ``source``."""
    sock = trio.socket.socket()
    await sock.bind((source, 0))
    await sock.connect(server.addresses[0])
    async with trio.SocketStream(sock) as stream:
        yield stream


async def answer_to(stream: trio.abc.Stream, request: bytes) -> bytes:
    """All that the server says to ``request`` until it closes, or accepts."""
    answer = b""
    try:
        if request:
            await stream.send_all(request)
        while not answer.startswith(b"HTTP/1.1 101") and (data := await stream.receive_some()):
            answer += data
    except trio.BrokenResourceError:
        pass  # closed with unread bytes
    return answer


async def address_seen(lobby: Lobby, server: trioroom.Server, source: str, request: bytes) -> str | None:
    """Where a member is that came from ``source`` with ``request``."""
    joined = len(lobby.joined)
    async with connecting(server, source) as stream:
        assert b" 101 " in await answer_to(stream, request)
        await wait_all_tasks_blocked(0.01)
        assert len(lobby.joined) == joined + 1
        return lobby.joined[-1].address


# -- addresses without proxies ---------------------------------------------------------------------


async def test_member_s_address_is_that_of_its_socket(lobby: Lobby, upgrade: Upgrade) -> None:
    async with open_test_server(lobby.app, settings_of(trusted_proxies=()), tcp=True) as server:
        assert await address_seen(lobby, server, STRANGER, upgrade()) == STRANGER


async def test_address_is_looked_up_once_and_kept(lobby: Lobby, upgrade: Upgrade) -> None:
    async with open_test_server(lobby.app, settings_of(), tcp=True) as server:
        async with connecting(server, STRANGER) as asked, connecting(server, STRANGER) as not_asked:
            for stream in (asked, not_asked):
                assert b" 101 " in await answer_to(stream, upgrade())
                await wait_all_tasks_blocked(0.01)
            first, second = lobby.joined
            assert first.address == STRANGER
            assert second._connection._address is None, "kept for who asks, of a million others"
        await wait_all_tasks_blocked(0.01)
        assert first.address == STRANGER
        assert second.address is None


async def test_peer_in_memory_has_no_address(lobby: Lobby) -> None:
    async with open_test_server(lobby.app, settings_of(), tcp=True) as server, open_peer(server, "/echo/a"):
        await wait_all_tasks_blocked()
        assert lobby.joined[0].address is None


async def test_address_is_known_over_tls(lobby: Lobby, upgrade: Upgrade) -> None:
    async with open_tls_server(lobby, settings_of()) as (server, trusting):
        async with connecting(server, STRANGER) as tcp:
            stream = trio.SSLStream(tcp, trusting, server_hostname="test")
            assert b" 101 " in await answer_to(stream, upgrade())
            await wait_all_tasks_blocked(0.01)
            assert lobby.joined[0].address == STRANGER


@asynccontextmanager
async def open_tls_server(
    lobby: Lobby, settings: trioroom.Settings
) -> AsyncIterator[tuple[trioroom.Server, ssl.SSLContext]]:
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    serving, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("test").configure_cert(serving)
    authority.configure_trust(trusting)
    with trio.fail_after(20):
        async with trioroom.open_server(lobby.app, port=0, settings=settings, ssl_context=serving) as server:
            yield server, trusting


# -- headers of HTTP -------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [PROXY, STRANGER])
async def test_header_is_believed_of_trusted_proxies_only(lobby: Lobby, upgrade: Upgrade, source: str) -> None:
    asked = upgrade(headers=(f"X-Forwarded-For: 203.0.113.66, {CLIENT}, 127.1.0.9", "Forwarded: for=203.0.113.67"))
    async with open_test_server(lobby.app, settings_of(), tcp=True) as server:
        expected = CLIENT if source == PROXY else STRANGER
        for _ in range(2):  # as it is read, and as it is remembered
            assert await address_seen(lobby, server, source, asked) == expected


async def test_other_header_may_be_chosen(lobby: Lobby, upgrade: Upgrade) -> None:
    asked = upgrade(headers=("X-Forwarded-For: 203.0.113.66", f"Forwarded: for={CLIENT};proto=https"))
    async with open_test_server(lobby.app, settings_of(forwarded_header="Forwarded"), tcp=True) as server:
        for _ in range(2):
            assert await address_seen(lobby, server, PROXY, asked) == CLIENT


async def test_peers_that_ask_alike_keep_addresses_of_their_own_and_one_request(lobby: Lobby, upgrade: Upgrade) -> None:
    async with open_test_server(lobby.app, settings_of(), tcp=True) as server:
        for number in range(1, 5):
            asked = upgrade(headers=(f"X-Forwarded-For: 192.0.2.{number}",))
            assert await address_seen(lobby, server, PROXY, asked) == f"192.0.2.{number}"
        assert await address_seen(lobby, server, PROXY, upgrade()) == PROXY
        assert len({id(member.request) for member in lobby.joined}) == 1
        assert lobby.joined[0].request.header("x-forwarded-for") is None
        asked = upgrade(headers=(f"X-Forwarded-For: {CLIENT}",))
        assert await address_seen(lobby, server, STRANGER, asked) == STRANGER
        assert lobby.joined[-1].request.header("x-forwarded-for") == CLIENT


async def test_header_in_two_lines_is_read_to_its_end(lobby: Lobby, upgrade: Upgrade) -> None:
    async with open_test_server(lobby.app, settings_of(), tcp=True) as server:
        for number in range(1, 4):
            lines = ("X-Forwarded-For: 203.0.113.66", f"x-forwarded-for:192.0.2.{number}")
            assert await address_seen(lobby, server, PROXY, upgrade(headers=lines)) == f"192.0.2.{number}"


async def test_what_a_client_sends_behind_its_head_tells_no_address(lobby: Lobby, upgrade: Upgrade) -> None:
    behind = upgrade() + b"X-Forwarded-For: 203.0.113.66\r\n"
    async with open_test_server(lobby.app, settings_of(), tcp=True) as server:
        for asked in (upgrade(), behind):  # the second time the head is remembered
            assert await address_seen(lobby, server, PROXY, asked) == PROXY


async def test_address_behind_a_proxy_has_its_bound_and_others_theirs(lobby: Lobby, upgrade: Upgrade) -> None:
    def asked(number: int) -> bytes:
        return upgrade(headers=(f"X-Forwarded-For: 192.0.2.{number}",))

    async with open_test_server(lobby.app, settings_of(max_connections_per_address=1), tcp=True) as server:
        async with connecting(server, PROXY) as first, connecting(server, PROXY) as other:
            assert b" 101 " in await answer_to(first, asked(1))
            assert b" 101 " in await answer_to(other, asked(2))
            for _ in range(2):
                async with connecting(server, PROXY) as second:
                    refused = await answer_to(second, asked(1))
                    assert refused.startswith(b"HTTP/1.1 503 ")
                    assert b"\r\nRetry-After: " in refused
                    assert b"your address has as many connections as max_connections_per_address allows" in refused
            assert server._overview.admission.refused == {Verdict.ADDRESS_FULL: 2}
        await wait_all_tasks_blocked(0.01)
        async with connecting(server, PROXY) as again:
            assert b" 101 " in await answer_to(again, asked(1))


async def test_who_invents_addresses_counts_by_its_own(lobby: Lobby, upgrade: Upgrade) -> None:
    async with open_test_server(lobby.app, settings_of(max_connections_per_address=1), tcp=True) as server:
        async with connecting(server, STRANGER) as first, connecting(server, STRANGER) as second:
            assert b" 101 " in await answer_to(first, upgrade(headers=("X-Forwarded-For: 192.0.2.1",)))
            assert b" 503 " in await answer_to(second, upgrade(headers=("X-Forwarded-For: 192.0.2.2",)))


@pytest.mark.parametrize(
    ("source", "headers", "origin", "code"),
    [
        (PROXY, ("X-Forwarded-Proto: https",), "https://test", 101),
        (PROXY, ("X-Forwarded-Proto: https",), "http://test", 403),
        (PROXY, ("X-Forwarded-Proto: wss",), "https://test", 101),
        (PROXY, ("X-Forwarded-Proto: http",), "https://test", 403),
        (PROXY, ("X-Forwarded-Proto: https", "X-Forwarded-Host: a.example"), "https://a.example", 101),
        (PROXY, ("X-Forwarded-Proto: https", "X-Forwarded-Host: a.example"), "https://test", 403),
        (PROXY, ("X-Forwarded-Host: a.example:8443",), "https://a.example:8443", 101),
        (PROXY, (), "https://test", 101),
        (PROXY, (), "http://test", 101),
        (STRANGER, ("X-Forwarded-Proto: https",), "http://test", 101),
        (STRANGER, ("X-Forwarded-Host: a.example",), "https://a.example", 403),
    ],
)
async def test_page_s_origin_is_compared_with_what_the_peer_asked_of_the_proxy(
    lobby: Lobby, upgrade: Upgrade, source: str, headers: tuple[str, ...], origin: str, code: int
) -> None:
    asked = upgrade(headers=(f"Origin: {origin}", *headers))
    async with open_test_server(lobby.app, settings_of(), tcp=True) as server:
        for _ in range(2):
            async with connecting(server, source) as stream:
                assert f" {code} ".encode() in await answer_to(stream, asked)


async def test_stranger_is_not_let_in_by_what_was_agreed_with_a_proxy(lobby: Lobby, upgrade: Upgrade) -> None:
    asked = upgrade(headers=("Origin: https://a.example", "X-Forwarded-Host: a.example"))
    async with open_test_server(lobby.app, settings_of(), tcp=True) as server:
        for source, code in ((PROXY, b" 101 "), (STRANGER, b" 403 "), (PROXY, b" 101 ")):
            async with connecting(server, source) as stream:
                assert code in await answer_to(stream, asked)


async def test_page_without_tls_is_foreign_to_a_server_with_it(lobby: Lobby, upgrade: Upgrade) -> None:
    async with open_tls_server(lobby, settings_of()) as (server, trusting):
        for origin, code in (("https://test", b" 101 "), ("http://test", b" 403 ")):
            async with connecting(server, STRANGER) as tcp:
                stream = trio.SSLStream(tcp, trusting, server_hostname="test", https_compatible=True)
                assert code in await answer_to(stream, upgrade(headers=(f"Origin: {origin}",)))


# -- PROXY protocol --------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [v1(), v2()])
async def test_proxy_header_tells_the_peer_s_address(lobby: Lobby, upgrade: Upgrade, header: bytes) -> None:
    async with open_test_server(lobby.app, settings_of(proxy_protocol=True), tcp=True) as server:
        assert await address_seen(lobby, server, PROXY, header + upgrade()) == CLIENT


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n"])
async def test_proxy_that_speaks_for_itself_has_its_own_address(lobby: Lobby, upgrade: Upgrade, header: bytes) -> None:
    async with open_test_server(lobby.app, settings_of(proxy_protocol=True), tcp=True) as server:
        assert await address_seen(lobby, server, PROXY, header + upgrade()) == PROXY
        async with connecting(server, PROXY) as stream:
            assert b" 200 OK" in await answer_to(stream, header + HEALTH)


@pytest.mark.parametrize("header", [v1(), v2()])
async def test_header_may_come_byte_by_byte_and_everything_behind_it_is_kept(
    lobby: Lobby, upgrade: Upgrade, header: bytes
) -> None:
    async with open_test_server(lobby.app, settings_of(proxy_protocol=True), tcp=True) as server:
        async with connecting(server, PROXY) as stream:
            for byte in header:
                await stream.send_all(bytes([byte]))
                await wait_all_tasks_blocked()
            assert b" 101 " in await answer_to(stream, upgrade())
            await wait_all_tasks_blocked(0.01)
            assert lobby.joined[0].address == CLIENT


@pytest.mark.parametrize("header", [v1(), v2()])
async def test_header_comes_before_tls(lobby: Lobby, upgrade: Upgrade, header: bytes) -> None:
    async with open_tls_server(lobby, settings_of(proxy_protocol=True)) as (server, trusting):
        async with connecting(server, PROXY) as tcp:
            await tcp.send_all(header)
            stream = trio.SSLStream(tcp, trusting, server_hostname="test")
            assert b" 101 " in await answer_to(stream, upgrade())
            await wait_all_tasks_blocked(0.01)
            assert lobby.joined[0].address == CLIENT


async def test_stranger_with_a_header_is_told_to_go_to_a_proxy(
    lobby: Lobby, upgrade: Upgrade, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "trioroom")
    async with open_test_server(lobby.app, settings_of(proxy_protocol=True), tcp=True) as server:
        for request in (v1() + upgrade(), v2() + upgrade(), upgrade()):
            async with connecting(server, STRANGER) as stream:
                answer = await answer_to(stream, request)
                assert answer.startswith(b"HTTP/1.1 403 ")
                assert b"this server takes connections from its proxies only" in answer
        assert server._overview.admission.refused == {Verdict.NOT_A_PROXY: 3}
        assert server._overview.admission.present == 0
    assert not lobby.joined
    assert [record.getMessage() for record in caplog.records] == [
        f"turning away {STRANGER} and others that come now: not in trusted_proxies"
    ]


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n"])
async def test_proxy_without_a_header_is_closed_and_the_log_says_why(
    lobby: Lobby, first: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "trioroom")
    async with open_test_server(lobby.app, settings_of(proxy_protocol=True), tcp=True) as server:
        for _ in range(3):
            async with connecting(server, PROXY) as stream:
                assert await answer_to(stream, first) == b""
        assert server._overview.admission.refused == {Verdict.NO_HEADER: 3}
        assert server._overview.admission.present == 0
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"turning away {PROXY} and others that come now: ")
    assert "PROXY header" in line


@pytest.mark.parametrize("sent", [b"", b"PROX", v2()[:-1]])
async def test_header_that_does_not_come_is_waited_for_until_the_deadline(
    lobby: Lobby, sent: bytes, autojump_clock: MockClock
) -> None:
    async with open_test_server(lobby.app, settings_of(proxy_protocol=True), tcp=True) as server:
        async with connecting(server, PROXY) as stream:
            began = trio.current_time()
            assert await answer_to(stream, sent) == b""
            assert trio.current_time() - began == pytest.approx(10, abs=1)
        assert server._overview.admission.refused == {Verdict.NO_HEADER: 1}
        assert server._overview.admission.present == 0


async def test_header_and_handshake_have_one_deadline(lobby: Lobby, autojump_clock: MockClock) -> None:
    async with open_test_server(lobby.app, settings_of(proxy_protocol=True), tcp=True) as server:
        async with connecting(server, PROXY) as stream:
            began = trio.current_time()
            await trio.sleep(8)
            assert b" 408 " in await answer_to(stream, v1() + b"GET")
            assert trio.current_time() - began == pytest.approx(11, abs=1.1)  # and a second to take the answer


async def test_proxy_that_leaves_before_its_header_leaves_no_trace(
    lobby: Lobby, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_test_server(lobby.app, settings_of(proxy_protocol=True), tcp=True) as server:
        async with connecting(server, PROXY) as stream:
            await stream.send_all(b"PROXY ")
        await wait_all_tasks_blocked(0.01)
        assert server._overview.admission.present == 0
    assert not caplog.records


async def test_server_that_stops_does_not_wait_for_headers(lobby: Lobby) -> None:
    with trio.fail_after(5):
        async with trioroom.open_server(lobby.app, port=0, settings=settings_of(proxy_protocol=True)) as server:
            async with connecting(server, PROXY) as stream:
                await wait_all_tasks_blocked(0.01)
                admission = server._overview.admission
                assert admission.present == 1
                server._entrance._nursery.cancel_scope.cancel()
                assert await answer_to(stream, b"") == b""
        assert admission.present == 0


async def test_address_in_the_header_has_its_bound(lobby: Lobby, upgrade: Upgrade) -> None:
    settings = settings_of(proxy_protocol=True, max_connections_per_address=1)
    async with open_test_server(lobby.app, settings, tcp=True) as server:
        async with connecting(server, PROXY) as first, connecting(server, PROXY) as other:
            assert b" 101 " in await answer_to(first, v2("192.0.2.1") + upgrade())
            assert b" 101 " in await answer_to(other, v2("192.0.2.2") + upgrade())
            async with connecting(server, PROXY) as second:
                assert b" 503 " in await answer_to(second, v2("192.0.2.1") + upgrade())
            assert server._overview.admission.present == 2
        await wait_all_tasks_blocked(0.01)
        async with connecting(server, PROXY) as again:
            assert b" 101 " in await answer_to(again, v2("192.0.2.1") + upgrade())


async def test_proxy_behind_a_proxy_tells_by_its_headers(lobby: Lobby, upgrade: Upgrade) -> None:
    settings = settings_of(trusted_proxies=("127.1.0.0/16", "10.0.0.0/8"), proxy_protocol=True)
    asked = upgrade(headers=(f"X-Forwarded-For: {CLIENT}",))
    async with open_test_server(lobby.app, settings, tcp=True) as server:
        assert await address_seen(lobby, server, PROXY, v1("10.0.0.5") + asked) == CLIENT
        assert await address_seen(lobby, server, PROXY, v1("192.0.2.9") + asked) == "192.0.2.9", "a client's invention"
