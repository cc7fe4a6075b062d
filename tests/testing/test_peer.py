"""The in-memory peers that users test their rooms with."""

from __future__ import annotations

import pytest
import trio

import trioroom
from trioroom._wire.frames import Opcode, Ping, Pong
from trioroom.testing import open_peer, open_test_server


class Echo(trioroom.Room):
    """Sends back what comes."""

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        member.send(message.data)


@pytest.fixture
def app() -> trioroom.App:
    app = trioroom.App()
    app.route("echo", Echo)
    return app


async def test_messages_go_both_ways(app: trioroom.App) -> None:
    async with open_test_server(app) as server, open_peer(server, "/echo") as peer:
        for data in ("text", b"bytes", "x" * 60_000):
            await peer.send(data)
            assert await peer.receive() == data
        await peer.send_json({"a": 1})
        assert await peer.receive_json() == {"a": 1}
        assert peer.head.startswith(b"HTTP/1.1 101 ")


async def test_refusal_carries_the_answer(app: trioroom.App) -> None:
    async with open_test_server(app) as server:
        with pytest.raises(trioroom.ConnectionClosed, match="404"):
            async with open_peer(server, "/nowhere"):
                pass


async def test_close_is_answered_and_told(app: trioroom.App) -> None:
    async with open_test_server(app) as server, open_peer(server, "/echo") as peer:
        await peer.close(3000)
        with pytest.raises(trioroom.ConnectionClosed) as closed:
            await peer.receive()
        assert (closed.value.code, closed.value.by_peer) == (3000, True)
        with pytest.raises(trioroom.ConnectionClosed) as closed:
            await peer.receive()
        assert closed.value.code == 1006


async def test_pings_are_answered_by_either_side(app: trioroom.App, autojump_clock: object) -> None:
    settings = trioroom.Settings(ping_interval=10, ping_timeout=2)
    async with open_test_server(app, settings) as server, open_peer(server, "/echo") as peer:
        await peer.send_frame(Opcode.PING, b"abc")
        assert await peer.receive_event() == Pong(b"abc")
        assert isinstance(await peer.receive_event(), Ping)


async def test_pings_are_answered_while_other_tasks_send(app: trioroom.App, autojump_clock: object) -> None:
    settings = trioroom.Settings(ping_interval=10, ping_timeout=2)
    async with (
        open_test_server(app, settings) as server,
        open_peer(server, "/echo") as peer,
        trio.open_nursery() as nursery,
    ):
        for number in range(10):
            nursery.start_soon(peer.send, str(number))
            nursery.start_soon(peer.send_frame, Opcode.PING)
        assert sorted([str(await peer.receive()) for _ in range(10)]) == [str(number) for number in range(10)]


async def test_test_that_hangs_is_given_up_at_once_on_a_virtual_clock(
    app: trioroom.App, autojump_clock: object
) -> None:
    with pytest.raises(trio.TooSlowError, match=r"after 86,400 seconds(.|\n)*test_peer.py:\d+ .* → sleep_forever"):
        async with open_test_server(app):
            await trio.sleep_forever()


async def test_peer_that_does_not_read_stays_for_minutes(app: trioroom.App, autojump_clock: object) -> None:
    async with open_test_server(app) as server, open_peer(server, "/echo") as peer:
        await trio.sleep(300)
        await peer.send("still here")
        assert await peer.receive() == "still here"


async def test_server_listens_on_a_port_only_when_it_is_told_to(app: trioroom.App) -> None:
    async with open_test_server(app) as server:
        assert server.addresses == []
        with pytest.raises(RuntimeError, match="listens on no port"):
            _ = server.port
        with pytest.raises(RuntimeError, match="tcp=True"):
            async with open_peer(server, "/echo", tcp=True):
                pass
    async with open_test_server(app, tcp=True) as server, open_peer(server, "/echo", tcp=True) as peer:
        await peer.send("over a socket")
        assert await peer.receive() == "over a socket"
