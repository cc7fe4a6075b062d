"""Sockets that are accepted: the TLS context of new ones may be exchanged while others are open."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

import trioroom
from trioroom.testing import open_test_server

if TYPE_CHECKING:
    from tests._net.conftest import Greet, Lobby


class Authority:
    """Issues contexts of servers, and connects to them."""

    def __init__(self) -> None:
        self._ca = trustme.CA(key_type=trustme.KeyType.ECDSA)

    def issue(self, name: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert(name).configure_cert(context)
        return context

    async def open(self, server: trioroom.Server, name: str) -> trio.SSLStream[trio.SocketStream]:
        context = ssl.create_default_context()
        self._ca.configure_trust(context)
        tcp = await trio.open_tcp_stream("127.0.0.1", server.port)
        return trio.SSLStream(tcp, context, server_hostname=name, https_compatible=True)


async def test_new_context_is_for_new_connections_and_old_ones_stay(lobby: Lobby, greet: Greet) -> None:
    authority = Authority()
    old, new = authority.issue("old"), authority.issue("new")
    with trio.fail_after(10):
        async with trioroom.open_server(lobby.app, port=0, ssl_context=old) as server:
            assert server.ssl_context is old
            async with await authority.open(server, "old") as first:
                peer = await greet(first)
                server.ssl_context = new
                async with await authority.open(server, "new") as second:
                    await (await greet(second)).close()
                await peer.send("still here")
                assert await peer.receive() == "still here"
                await peer.close()


async def test_running_server_neither_begins_nor_ends_tls(lobby: Lobby) -> None:
    async with open_test_server(lobby.app) as server:
        assert server.ssl_context is None
        server.ssl_context = None
        with pytest.raises(ValueError, match="a server that runs cannot begin or end TLS; open another one"):
            server.ssl_context = Authority().issue("a")
