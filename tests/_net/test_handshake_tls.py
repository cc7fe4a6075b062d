"""Handshakes over TLS, and without it where it is wanted."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trio
import trustme
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import trioroom
from tests._net.test_handshake import PLAIN, TIMEOUT, read_all
from trioroom._wire.frames import Close

if TYPE_CHECKING:
    from tests._net.conftest import Greet, Lobby


class Certified:
    """Both sides' contexts of a TLS connection to ``test``."""

    def __init__(self) -> None:
        authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("test").configure_cert(self.server)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)


@pytest.fixture(scope="module")
def certified() -> Certified:
    return Certified()


async def test_rooms_are_reached_over_tls(lobby: Lobby, certified: Certified, greet: Greet) -> None:
    with trio.fail_after(10):
        async with trioroom.open_server(lobby.app, port=0, ssl_context=certified.server) as server:
            tcp = await trio.open_tcp_stream("127.0.0.1", server.port)
            async with trio.SSLStream(tcp, certified.client, server_hostname="test", https_compatible=True) as stream:
                peer = await greet(stream)
                for data in ("hello", b"x" * 60_000):
                    await peer.send(data)
                    assert await peer.receive() == data
                await peer.close()
                assert await peer.receive_event() == Close(1000, "")


async def test_connection_without_tls_where_it_is_wanted_is_dropped(lobby: Lobby, certified: Certified) -> None:
    with trio.fail_after(10):
        async with trioroom.open_server(lobby.app, port=0, ssl_context=certified.server) as server:
            async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
                await stream.send_all(PLAIN)
                assert b"HTTP/1.1" not in await read_all(stream)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"])
async def test_connection_that_never_starts_tls_is_cut_off(
    server: trioroom.Server, certified: Certified, autojump_clock: MockClock, sent: bytes
) -> None:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        stream = trio.SSLStream(theirs, certified.server, server_side=True, https_compatible=True)
        nursery.start_soon(server.serve_stream, stream)
        await ours.send_all(sent)
        await read_all(ours)
    assert TIMEOUT <= trio.current_time() <= TIMEOUT + 1.1
    assert server.connection_count == 0


async def test_cancelled_tls_handshake_closes_the_stream(
    server: trioroom.Server, certified: Certified, autojump_clock: MockClock
) -> None:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        stream = trio.SSLStream(theirs, certified.server, server_side=True, https_compatible=True)
        nursery.start_soon(server.serve_stream, stream)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert await read_all(ours) == b""
