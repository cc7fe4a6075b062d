"""Listening sockets and the accept loop: what it does when descriptors run out, and when it is told to stop."""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock

import trioroom
from trioroom._net.listener import bind_sockets, open_listeners
from trioroom.settings import Settings
from trioroom.testing import open_peer, open_test_server

if TYPE_CHECKING:
    from tests._net.conftest import Greet, Lobby


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


class Resolver(trio.abc.HostnameResolver):
    """Knows one host, and nothing of the network."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def getaddrinfo(self, host: Any, port: Any, family: int = 0, *more: int, **named: int) -> Any:
        await trio.lowlevel.checkpoint()
        if not self._addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such host")
        found: list[object] = []
        for address in self._addresses:
            found += socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
        return found

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


@contextmanager
def resolving_to(*addresses: str) -> Iterator[None]:
    before = trio.socket.set_custom_hostname_resolver(Resolver(*addresses))
    try:
        yield
    finally:
        trio.socket.set_custom_hostname_resolver(before)


def open_descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))


# -- listening -----------------------------------------------------------------------------------


async def test_port_0_picks_a_free_one() -> None:
    (listener,) = await open_listeners("127.0.0.1", 0, Settings())
    with listener:
        host, port = listener.getsockname()
        assert (host, port > 0, listener.getblocking()) == ("127.0.0.1", True, False)
        with socket.create_connection((host, port)), listener.accept()[0]:
            pass


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
@pytest.mark.parametrize("addresses", [("::1", "127.0.0.1", "::1"), ("::", "0.0.0.0")])
async def test_all_addresses_of_a_host_listen_on_one_port(addresses: tuple[str, ...]) -> None:
    with resolving_to(*addresses):
        listeners = await open_listeners("localhost", 0, Settings())
    with ExitStack() as stack:
        for listener in listeners:
            stack.enter_context(listener)
        assert [listener.family for listener in listeners] == [socket.AF_INET6, socket.AF_INET]
        port = listeners[0].getsockname()[1]
        assert listeners[1].getsockname()[1] == port
        for listener in listeners:
            with socket.create_connection(listener.getsockname()[:2]), listener.accept()[0]:
                pass


async def test_wildcard_listens_on_every_address() -> None:
    listeners = await open_listeners("0.0.0.0", 0, Settings())
    with listeners[0] as listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1])):
        listener.accept()[0].close()


async def test_busy_port_is_an_error_and_leaves_no_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        before = open_descriptors()
        with pytest.raises(OSError, match="in use") as raised:
            await open_listeners("127.0.0.1", busy.getsockname()[1], Settings())
        assert raised.value.errno == errno.EADDRINUSE
        assert open_descriptors() == before


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
async def test_port_that_is_busy_on_the_second_address_closes_the_first() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy, resolving_to("::1", "127.0.0.1"):
        port = busy.getsockname()[1]
        before = open_descriptors()
        with pytest.raises(OSError, match="in use"):
            await open_listeners("localhost", port, Settings())
        assert open_descriptors() == before
        with socket.create_server(("::1", port), family=socket.AF_INET6):
            pass


async def test_host_without_an_address_is_an_error() -> None:
    with resolving_to(), pytest.raises(OSError, match="no such host"):
        await open_listeners("nowhere.invalid", 0, Settings())


async def test_shared_port_takes_those_that_share_and_nobody_else() -> None:
    (reserved,) = await bind_sockets("127.0.0.1", 0, reuse_port=True)
    with reserved:
        port = reserved.getsockname()[1]
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with ExitStack() as stack:
            listeners: list[socket.socket] = []
            for _ in range(2):
                listeners += await open_listeners("127.0.0.1", port, Settings(), reuse_port=True)
                stack.enter_context(listeners[-1])
            waiting = [False, False]
            with trio.fail_after(5):
                while not all(waiting):  # the kernel spreads them by a hash of their addresses
                    stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                    for number, listener in enumerate(listeners):
                        with suppress(BlockingIOError), listener.accept()[0]:
                            waiting[number] = True
                    await trio.lowlevel.checkpoint()
            with pytest.raises(OSError, match="in use"):
                await open_listeners("127.0.0.1", port, Settings())


async def test_bound_socket_accepts_nothing_until_it_listens() -> None:
    (bound,) = await bind_sockets("127.0.0.1", 0)
    with bound, pytest.raises(ConnectionRefusedError):
        socket.create_connection(bound.getsockname())


async def test_servers_of_two_processes_may_share_a_port(lobby: Lobby) -> None:
    async with (
        trioroom.open_server(lobby.app, port=0, reuse_port=True) as server,
        trioroom.open_server(trioroom.App(), port=server.port, reuse_port=True) as other,
    ):
        assert other.port == server.port


# -- descriptors that really run out ---------------------------------------------------------------


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """As if the limit were reached: the next descriptor would have the first number above it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(first_free := os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_full_server_serves_those_it_has_and_takes_the_next_when_it_can(
    lobby: Lobby,
    greet: Greet,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "trioroom")
    async with open_test_server(lobby.app, tcp=True) as server, open_peer(server, "/echo/a", tcp=True) as present:
        late = trio.SocketStream(trio.socket.socket())
        with no_more_descriptors():
            await late.socket.connect(("127.0.0.1", server.port))
            await trio.sleep(9)
            (begun,) = caplog.records
            assert "cannot accept" in begun.getMessage()
            await present.send("still served")
            assert await present.receive() == "still served"
        async with late:
            peer = await greet(late)
            await peer.send("here at last")
            assert await peer.receive() == "here at last"
        assert [record.getMessage() for record in caplog.records] == [begun.getMessage(), "accepting again"]
