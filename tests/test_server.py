"""The server that runs an `App`: one at a time, how it ends, and what comes by other ways than its port."""

from __future__ import annotations

import socket

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import trioroom
from trioroom.testing import Peer, open_peer, open_test_server, open_v1_peer


class Hall(trioroom.Room):
    """Tells its members which class they are with, and keeps a record of those who left."""

    async def on_join(self, member: trioroom.Member) -> object:
        return type(self).__name__

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        left.append(reason)


left: list[str] = []


@pytest.fixture
def app() -> trioroom.App:
    left.clear()
    app = trioroom.App()
    app.route("room/{name}", Hall)
    return app


async def close_of(peer: Peer) -> trioroom.ConnectionClosed:
    """How the server closes; messages before that are passed over."""
    try:
        while True:
            await peer.receive()
    except trioroom.ConnectionClosed as closed:
        return closed


# -- one server at a time --------------------------------------------------------------------------------


async def test_app_runs_in_one_server_at_a_time(app: trioroom.App) -> None:
    message = "this app runs already; make another App for another server"
    async with open_test_server(app, timeout=5):
        with pytest.raises(RuntimeError, match=message):
            async with trioroom.open_server(app, port=0):
                pass
        await app.publish("room/a", "still running")
    async with open_test_server(app, timeout=5) as server, open_peer(server, "/room/a") as peer:
        assert await peer.receive() == "Hall"


async def test_app_runs_in_one_of_two_servers_that_open_at_once(app: trioroom.App) -> None:
    opened: list[trioroom.Server] = []
    refused: list[RuntimeError] = []

    async def run() -> None:
        try:
            async with open_test_server(app, timeout=5) as server:
                opened.append(server)
                await wait_all_tasks_blocked()
        except RuntimeError as exc:
            refused.append(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        nursery.start_soon(run)
    assert (len(opened), len(refused)) == (1, 1)


async def test_app_can_run_after_its_address_was_taken(app: trioroom.App) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match="in use"):
            async with trioroom.open_server(app, port=taken.getsockname()[1]):
                pass
    async with open_test_server(app, timeout=5, tcp=True) as server:
        assert server.port == server.addresses[0][1] != 0


# -- the end ---------------------------------------------------------------------------------------------


class Guests:
    """Peers in tasks of their own, over TCP, which stay until the server closes."""

    def __init__(self, server: trioroom.Server) -> None:
        self.server = server
        self.arrived = 0
        self.closed: list[tuple[int, str]] = []
        self.pushes: list[object] = []

    async def stay(self) -> None:
        async with open_peer(self.server, "/room/a", tcp=True) as peer:
            assert await peer.receive() == "Hall"
            self.arrived += 1
            self.note(await close_of(peer))

    async def stay_v1(self) -> None:
        async with open_v1_peer(self.server, tcp=True) as v1:
            await v1.join("room/a")
            self.arrived += 1
            try:
                while True:
                    self.pushes.append(await v1.receive())
            except trioroom.ConnectionClosed as closed:
                self.note(closed)

    def note(self, closed: trioroom.ConnectionClosed) -> None:
        self.closed.append((closed.code, closed.reason))

    async def arrive(self, nursery: trio.Nursery) -> None:
        """Two plain ones and a v1 one."""
        for stay in (self.stay, self.stay, self.stay_v1):
            nursery.start_soon(stay)
        while self.arrived < 3:
            await wait_all_tasks_blocked()
        assert self.server.connection_count == 3


async def test_leaving_the_context_drains(app: trioroom.App) -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            async with open_test_server(app, tcp=True) as server:
                guests = Guests(server)
                await guests.arrive(nursery)
            assert left == ["the server drains; reconnect"] * 3
            assert server.connection_count == 0
            with pytest.raises(OSError, match="all attempts to connect"):
                await trio.open_tcp_stream("127.0.0.1", server.port)
    assert guests.closed == [(4101, "the server drains; reconnect")] * 3
    [bye] = guests.pushes
    assert isinstance(bye, dict)
    assert (bye["type"], bye["code"]) == ("bye", 4101)
    assert 0 <= bye["after"][0] < bye["after"][1] < 0.1  # of three, all may come back at once


async def test_draining_ends_with_drain_timeout_whatever_peers_do(app: trioroom.App, autojump_clock: MockClock) -> None:
    settings = trioroom.Settings(drain_timeout=3, close_timeout=100)
    with trio.fail_after(1_000):
        async with trio.open_nursery() as nursery:
            async with open_test_server(app, settings) as server:
                ours, theirs = memory_stream_pair()
                nursery.start_soon(server.serve_stream, theirs)
                await ours.send_all(
                    b"GET /room/a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
                await wait_all_tasks_blocked()
                start = trio.current_time()
            assert trio.current_time() - start == pytest.approx(3)
            assert left == ["the server drains; reconnect"]


async def test_cancelling_closes_at_once(app: trioroom.App) -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with open_test_server(app, tcp=True) as server:
                    guests = Guests(server)
                    await guests.arrive(nursery)
                    scope.cancel()
                    await trio.sleep_forever()
            assert left == ["the server stops"] * 3
    assert guests.closed == [(1001, "the server stops")] * 3
    assert guests.pushes == []


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), ExceptionGroup("two", [OSError()])])
async def test_error_in_the_body_comes_out_as_it_is_after_members_left(app: trioroom.App, error: BaseException) -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            raised: BaseException | None = None
            try:
                async with open_test_server(app, tcp=True) as server:
                    guests = Guests(server)
                    await guests.arrive(nursery)
                    raise error
            except BaseException as exc:
                raised = exc
            assert raised is error
            assert left == ["the server stops"] * 3
    assert guests.closed == [(1001, "the server stops")] * 3


async def test_serve_runs_until_cancelled(app: trioroom.App) -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery, trio.open_nursery() as servers:
            server = await servers.start(lambda task_status: trioroom.serve(app, port=0, task_status=task_status))
            guests = Guests(server)
            await guests.arrive(nursery)
            servers.cancel_scope.cancel()
    assert left == ["the server stops"] * 3


async def test_addresses_name_every_listener(app: trioroom.App) -> None:
    async with trioroom.open_server(app, "localhost", 0) as server:
        assert {port for _, port in server.addresses} == {server.port}
        assert {host for host, _ in server.addresses} <= {"127.0.0.1", "::1"}


# -- streams that come by other ways ---------------------------------------------------------------------


async def test_served_stream_is_closed_when_its_peer_is_done(app: trioroom.App, autojump_clock: MockClock) -> None:
    async with open_test_server(app) as server, open_peer(server, "/room/a") as peer:
        assert server.connection_count == 1
        await peer.close(4000)
        assert (await close_of(peer)).code == 4000
        assert await peer.stream.receive_some() == b""
        await wait_all_tasks_blocked()
        assert server.connection_count == 0


async def test_cancelling_the_serving_of_a_stream_closes_it_alone(app: trioroom.App, autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    async with open_test_server(app) as server, open_peer(server, "/room/a") as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, theirs)
            await ours.send_all(b"GET / HTTP/1.1\r\n")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert await ours.receive_some() == b""
        async with open_peer(server, "/room/a") as peer:
            await peer.send("goes on")
            assert [await other.receive() for _ in range(2)] == ["Hall", "goes on"]


async def test_server_without_a_host_listens_on_nothing_and_serves_streams(app: trioroom.App) -> None:
    with trio.fail_after(5):
        async with trioroom.open_server(app, None) as server:
            assert server.addresses == []
            with pytest.raises(RuntimeError, match="listens on no port"):
                _ = server.port
            async with open_peer(server, "/room/a"):
                assert server.connection_count == 1


async def test_server_that_has_failed_turns_away_who_comes_by_a_stream(app: trioroom.App) -> None:
    servers: list[trioroom.Server] = []

    async def fail() -> None:
        async with trioroom.open_server(app, None) as server:
            servers.append(server)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    with trio.fail_after(5), pytest.raises(trioroom.ConnectionClosed, match="503"):
        async with open_peer(servers[0], "/room/a"):
            pass
