"""How many may come in, and what is said to the others: over real sockets, as descriptors are what it is about."""

from __future__ import annotations

import errno
import logging
import math
import os
import resource
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trustme
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from trioroom._core.admission import Verdict
from trioroom._core.networks import Networks
from trioroom._net.accepted import AcceptedSockets
from trioroom._net.entrance import Entrance, open_admission
from trioroom._net.readiness import PollReadiness
from trioroom._net.refusals import Refusals
from trioroom._net.transport import Transport
from trioroom.settings import Settings
from trioroom.testing import open_peer, open_test_server

if TYPE_CHECKING:
    from tests._net.conftest import Lobby
    from trioroom._net.handshake import Greeter

REQUEST = (
    b"GET /echo/a HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def settings_of(max_connections: int | None = None, per_address: float = math.inf) -> Settings:
    return Settings(
        max_connections=max_connections, max_connections_per_address=per_address, drain_timeout=1.0, close_timeout=1.0
    )


@asynccontextmanager
async def connecting(server: trioroom.Server, source: str = "127.0.0.1") -> AsyncIterator[trio.SocketStream]:
    """One that comes from the address ``source``, of which the loopback interface of Linux has many."""
    sock = trio.socket.socket()
    await sock.bind((source, 0))
    await sock.connect(server.addresses[0])
    async with trio.SocketStream(sock) as stream:
        yield stream


async def answer_to(stream: trio.abc.Stream, request: bytes = REQUEST) -> bytes:
    """All that the server says to ``request`` until it closes, or accepts."""
    answer = b""
    await stream.send_all(request)
    while not answer.startswith(b"HTTP/1.1 101") and (data := await stream.receive_some()):
        answer += data
    return answer


def retry_after(head: bytes) -> int:
    """The seconds that a refusal tells."""
    return int(head.partition(b"\r\nRetry-After: ")[2].partition(b"\r\n")[0])


@contextmanager
def open_files(limit: int) -> Iterator[None]:
    """As if the process could have no descriptor from ``limit`` on; those above stay open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- the bounds ------------------------------------------------------------------------------------


async def test_one_too_many_is_told_so_and_the_others_stay(lobby: Lobby) -> None:
    async with open_test_server(lobby.app, settings_of(2), tcp=True) as server:
        async with open_peer(server, "/echo/a", tcp=True) as present, open_peer(server, "/echo/a", tcp=True):
            async with connecting(server) as late:
                head, _, body = (await answer_to(late)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert 5 <= retry_after(head) <= 10
            assert body == b"this server has as many connections as max_connections allows; try again later\n"
            await present.send("still served")
            assert await present.receive() == "still served"
            assert server._overview.admission.refused == {Verdict.FULL: 1}
            assert server.statistics().refused_connections == 1


async def test_place_of_one_who_left_is_free(lobby: Lobby) -> None:
    async with open_test_server(lobby.app, settings_of(1), tcp=True) as server:
        for _ in range(3):
            async with open_peer(server, "/echo/a", tcp=True) as peer:
                await peer.close()
                with pytest.raises(trioroom.ConnectionClosed):
                    await peer.receive()
                assert await peer.stream.receive_some() == b""
        assert server._overview.admission.present == 0
        assert not server._overview.admission.refused


async def test_place_is_given_back_by_whoever_only_asked_something(lobby: Lobby) -> None:
    async with open_test_server(lobby.app, settings_of(1), tcp=True) as server:
        for _ in range(3):
            async with connecting(server) as stream:
                assert b" 200 OK" in await answer_to(stream, b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
            await wait_all_tasks_blocked(0.01)  # the kernel tells the server of the end


async def test_who_has_not_said_a_word_has_a_place_too(lobby: Lobby, autojump_clock: MockClock) -> None:
    async with open_test_server(lobby.app, settings_of(1), tcp=True) as server, connecting(server) as silent:
        async with connecting(server) as other:
            assert b" 503 " in await answer_to(other)
        await trio.sleep(Settings().handshake_timeout + 1)
        assert b" 408 " in await answer_to(silent, b"")
        await silent.aclose()
        await trio.sleep(1)
        async with connecting(server) as other:
            assert b" 101 " in await answer_to(other)


@pytest.mark.skipif(sys.platform != "linux", reason="needs several addresses on the loopback interface")
async def test_address_has_a_bound_of_its_own(lobby: Lobby) -> None:
    async with open_test_server(lobby.app, settings_of(per_address=2), tcp=True) as server:
        async with connecting(server, "127.0.0.2") as one, connecting(server, "127.0.0.2") as two:
            assert b" 101 " in await answer_to(one)
            assert b" 101 " in await answer_to(two)
            async with connecting(server, "127.0.0.2") as three:
                assert b"your address has as many connections as max_connections_per_add" in await answer_to(three)
            async with connecting(server, "127.0.0.3") as other:
                assert b" 101 " in await answer_to(other)
        assert server._overview.admission.refused == {Verdict.ADDRESS_FULL: 1}


async def test_bounds_hold_under_tls_and_who_is_refused_is_closed(lobby: Lobby) -> None:
    authority = trustme.CA()
    serving, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    authority.configure_trust(trusting)
    with trio.fail_after(20):
        async with trioroom.open_server(lobby.app, port=0, settings=settings_of(1), ssl_context=serving) as server:
            for _ in range(2):
                async with connecting(server) as stream:
                    present = trio.SSLStream(stream, trusting, server_hostname="127.0.0.1")
                    assert b" 101 " in await answer_to(present)
                    async with connecting(server) as late:
                        assert await late.receive_some() == b""
                await wait_all_tasks_blocked(0.01)  # the kernel tells the server of the end
            assert server._overview.admission.refused == {Verdict.FULL: 2}


async def test_large_bound_is_named_in_full(caplog: pytest.LogCaptureFixture) -> None:
    Refusals(open_admission(settings_of(1_048_576))).answer(Verdict.FULL, "192.0.2.1")
    assert "max_connections=1048576 reached" in caplog.text


def test_default_leaves_descriptors_for_other_uses() -> None:
    with open_files(1_024):
        assert open_admission(Settings()).limits[Verdict.FULL] == 768
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert open_admission(Settings()).limits[Verdict.FULL] == soft - min(2_048, soft // 4)
    if hard == resource.RLIM_INFINITY:
        with open_files(resource.RLIM_INFINITY):
            assert open_admission(Settings()).limits[Verdict.FULL] == math.inf


async def test_peer_that_cannot_be_served_leaves_no_trace(nursery: trio.Nursery) -> None:
    class Failing(AcceptedSockets):
        def open(self, sock: socket.socket) -> Transport:
            raise OSError(errno.ENOSPC, "max_user_watches reached")  # as epoll_ctl(2) says it

    settings = settings_of(1)
    admission = open_admission(settings)
    accepted = Failing(settings, PollReadiness(), None)
    entrance = Entrance(settings, admission, Refusals(admission), Networks(), cast("Greeter", None), nursery, accepted)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(OSError, match="max_user_watches"):
        entrance.take(ours, "127.0.0.1")
    assert admission.present == 0


# -- many at once ----------------------------------------------------------------------------------


async def test_thousand_that_come_at_once_are_all_told(lobby: Lobby) -> None:
    answers: list[bytes] = []

    async def come(server: trioroom.Server) -> None:
        async with connecting(server) as stream:
            answers.append(await answer_to(stream))

    async with open_test_server(lobby.app, settings_of(1), timeout=30, tcp=True) as server:
        async with open_peer(server, "/echo/a", tcp=True), trio.open_nursery() as nursery:
            for _ in range(1_000):
                nursery.start_soon(come, server)
        assert server._overview.admission.refused == {Verdict.FULL: 1_000}
    assert len(answers) == 1_000
    assert {answer[:12] for answer in answers} == {b"HTTP/1.1 503"}


async def test_refused_peers_that_stay_take_no_more_than_their_share_of_descriptors(
    lobby: Lobby, autojump_clock: MockClock
) -> None:
    top = max(map(int, os.listdir("/dev/fd")))
    limit = 8 * (top // 8 + 2)  # an eighth of it may linger
    with open_files(limit):
        entering = open_test_server(lobby.app, settings_of(1), tcp=True)
        server = await entering.__aenter__()
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(server.addresses[0])) for _ in range(limit)]
        before = len(os.listdir("/dev/fd"))
        await wait_all_tasks_blocked(0.01)
        assert len(os.listdir("/dev/fd")) - before <= 1 + limit // 8
        for client in clients[1:]:  # the first one is in
            client.settimeout(5)
            assert client.recv(12) == b"HTTP/1.1 503"
        await trio.sleep(2)
        assert len(os.listdir("/dev/fd")) - before <= 1
    await entering.__aexit__(None, None, None)


async def test_burst_of_refusals_is_one_line_in_the_log(
    lobby: Lobby, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "trioroom")
    async with open_test_server(lobby.app, settings_of(1), tcp=True) as server, connecting(server) as present:
        assert b" 101 " in await answer_to(present)
        for burst in (1, 2):
            for _ in range(20):
                async with connecting(server) as late:
                    assert b" 503 " in await answer_to(late)
            assert [record.getMessage() for record in caplog.records] == [
                "turning away 127.0.0.1 and others that come now: max_connections=1 reached"
            ] * burst
            with trio.move_on_after(11):
                await answer_to(present, b"\x8a\x80\x00\x00\x00\x00")  # nothing answers a pong
