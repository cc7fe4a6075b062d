"""Rooms mounted in a server that trio-websocket runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio.testing
from trio_websocket import open_websocket_url, serve_websocket, wrap_server_stream

import trioroom
from trioroom.testing import Peer, open_peer, open_test_server


class Chat(trioroom.Room):
    """Says who left."""

    left: list[str]

    async def on_open(self) -> None:
        self.left = []

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        if message.data == "out":
            member.leave("asked to")
        else:
            await self.publish(message.data, exclude=member)

    async def on_leave(self, member: trioroom.Member, reason: str) -> None:
        await self.publish(f"left: {reason}")


@asynccontextmanager
async def mounted(**settings: object) -> AsyncIterator[tuple[trioroom.Server, str]]:
    """Our server, and the URL of a trio-websocket one that has its rooms."""
    app = trioroom.App()
    app.route("chat/{name}", Chat)
    settings = {"close_timeout": 1.0, **settings}
    with trio.fail_after(20):
        async with open_test_server(app, trioroom.Settings(**settings), tcp=True) as server:  # type: ignore[arg-type]  # by name
            async with trio.open_nursery() as nursery:
                other = await nursery.start(serve_websocket, server.serve_websocket_request, "127.0.0.1", 0, None)
                yield server, f"ws://127.0.0.1:{other.port}"
                nursery.cancel_scope.cancel()


async def test_members_on_both_sides_share_a_room() -> None:
    async with mounted() as (server, url):
        async with open_websocket_url(f"{url}/chat/a") as there, open_peer(server, "/chat/a") as here:
            await here.send("hi")
            assert await there.get_message() == "hi"
            await there.send_message(b"ho")
            assert await here.receive() == b"ho"


async def test_batches_arrive_as_single_messages() -> None:
    async with mounted() as (server, url):
        async with open_websocket_url(f"{url}/chat/a") as there, open_peer(server, "/chat/a") as here:
            sent = [f"{number}" * size for number, size in enumerate((1, 125, 126, 40_000, 1))]
            for text in sent:
                await here.send(text)
            assert [await there.get_message() for _ in sent] == sent


async def test_v1_is_spoken_when_offered() -> None:
    async with mounted() as (_, url):
        async with open_websocket_url(f"{url}/", subprotocols=["trioroom.v1.json"]) as there:
            assert msgspec.json.decode(await there.get_message())["type"] == "hello"
            await there.send_message('{"type":"join","id":1,"room":"chat/a"}')
            assert msgspec.json.decode(await there.get_message())["type"] == "ok"


async def test_close_of_the_peer_ends_the_membership() -> None:
    async with mounted() as (server, url):
        async with open_peer(server, "/chat/a") as here:
            async with open_websocket_url(f"{url}/chat/a") as there:
                await there.aclose(4321, "bye")
            assert await here.receive() == "left: closed with 4321"


async def test_close_code_of_the_room_reaches_the_peer(
    greet: Callable[[trio.abc.Stream, str], Awaitable[Peer]],
) -> None:
    async with mounted() as (_, url), await open_stream(url) as stream:
        there = await greet(stream, "/chat/a")
        await there.send("out")
        with pytest.raises(trioroom.ConnectionClosed) as closed:
            await there.receive()
    assert (closed.value.code, closed.value.reason) == (1000, "asked to")


async def open_stream(url: str) -> trio.SocketStream:
    """For what trio-websocket's own client answers by leaking its socket: being closed or refused by the server."""
    return await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))


async def answer_to(url: str, handshake: bytes) -> tuple[str, str]:
    """Status and body of what ``handshake`` is answered with."""
    head = body = b""
    async with await open_stream(url) as stream:
        await stream.send_all(handshake)
        while not head.endswith(b"\r\n\r\n"):
            head += await stream.receive_some(1)
        if b" 101 " not in head:
            while not body.endswith(b"\n"):  # trio-websocket leaves it to the peer to close
                body += await stream.receive_some()
    return head.split()[1].decode(), body.decode()


async def test_path_without_a_room_is_rejected(upgrade: Callable[..., bytes]) -> None:
    async with mounted() as (_, url):
        status, body = await answer_to(url, upgrade("/nowhere"))
    assert (status, body) == ("404", "no room at '/nowhere'; connect to /chat/{name}\n")


@pytest.mark.parametrize(("allowed", "status"), [(None, "403"), (("https://a.example",), "101"), (("*",), "101")])
async def test_browser_needs_an_allowed_origin(
    allowed: tuple[str, ...] | None, status: str, upgrade: Callable[..., bytes]
) -> None:
    async with mounted(allowed_origins=allowed) as (_, url):
        answer, _ = await answer_to(url, upgrade("/chat/a", ("Origin: https://a.example",)))
    assert answer == status


@asynccontextmanager
async def mounted_in_memory() -> AsyncIterator[tuple[trioroom.Server, trio.abc.Stream]]:
    """Our server, and the peer's end of a connection that trio-websocket runs; for a clock that jumps."""
    app = trioroom.App()
    app.route("chat/{name}", Chat)
    async with open_test_server(app, trioroom.Settings()) as server, trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()

        async def serve() -> None:
            await server.serve_websocket_request(await wrap_server_stream(nursery, theirs))

        nursery.start_soon(serve)
        yield server, ours
        nursery.cancel_scope.cancel()


async def test_silent_peer_is_closed_after_the_timeout(
    greet: Callable[[trio.abc.Stream, str], Awaitable[Peer]], autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted_in_memory() as (_, stream):
        peer = await greet(stream, "/chat/a")
        peer.answers = False
        with pytest.raises(trioroom.ConnectionClosed) as closed:
            await peer.receive()
        assert (closed.value.code, closed.value.reason) == (4110, "no pong within 10 s")
        assert trio.current_time() == pytest.approx(25 + 10)


async def test_peer_that_answers_pings_stays(
    greet: Callable[[trio.abc.Stream, str], Awaitable[Peer]], autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted_in_memory() as (server, stream):
        peer = await greet(stream, "/chat/a")
        with trio.move_on_after(300) as scope:
            await peer.receive()
        assert scope.cancelled_caught
        assert server.connection_count == 1


async def test_peer_that_is_gone_when_something_is_sent_leaves(
    greet: Callable[[trio.abc.Stream, str], Awaitable[Peer]], autojump_clock: trio.testing.MockClock
) -> None:
    async with mounted_in_memory() as (server, stream), open_peer(server, "/chat/a") as here:
        await greet(stream, "/chat/a")
        await here.send("hello")
        await trio.aclose_forcefully(stream)
        assert await here.receive() == "left: connection lost"
        assert server.connection_count == 1


# -- who comes in ----------------------------------------------------------------------------------


class Where(trioroom.Room):
    """Tells members where they are."""

    async def on_join(self, member: trioroom.Member) -> None:
        member.send(str(member.address))
        member.send(str(member.request.header("x-forwarded-for")))


@asynccontextmanager
async def mounted_where(settings: trioroom.Settings) -> AsyncIterator[tuple[trioroom.Server, str]]:
    app = trioroom.App()
    app.route("where/{name}", Where)
    with trio.fail_after(20):
        async with open_test_server(app, settings, tcp=True) as server, trio.open_nursery() as nursery:
            other = await nursery.start(serve_websocket, server.serve_websocket_request, "127.0.0.1", 0, None)
            yield server, f"ws://127.0.0.1:{other.port}/where/a"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("trusted", "address"), [((), "127.0.0.1"), (("127.0.0.1",), "192.0.2.1")])
async def test_address_is_the_socket_s_or_what_a_trusted_proxy_tells(trusted: tuple[str, ...], address: str) -> None:
    headers = [(b"X-Forwarded-For", b"203.0.113.66, 192.0.2.1")]
    async with mounted_where(trioroom.Settings(trusted_proxies=trusted, close_timeout=1.0)) as (_, url):
        async with open_websocket_url(url, extra_headers=headers) as there:
            assert await there.get_message() == address
            kept = await there.get_message()
            assert kept == ("None" if trusted else "203.0.113.66, 192.0.2.1"), "what is believed is in the address"


@pytest.mark.parametrize("trusted", [(), ("127.0.0.1",)])
async def test_bounds_of_connections_hold(trusted: tuple[str, ...], upgrade: Callable[..., bytes]) -> None:
    settings = trioroom.Settings(max_connections_per_address=1, trusted_proxies=trusted, close_timeout=1.0)
    async with mounted_where(settings) as (server, url):
        asked = upgrade("/where/a", ("X-Forwarded-For: 192.0.2.1",))
        for _ in range(2):  # the place comes back
            async with open_websocket_url(url, extra_headers=[(b"X-Forwarded-For", b"192.0.2.1")]) as there:
                await there.get_message()
                status, body = await answer_to(url.removesuffix("/where/a"), asked)
                assert status == "503"
                assert body.startswith("your address has as many connections as max_connections_per_address allows")
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert server._overview.admission.present == 0
