"""One connection: whether it lives is found out, and what is in flight ends with it."""

from __future__ import annotations

from typing import cast

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked
from trio_websocket import WebSocketConnection

import trioroom
from tests.backplane.proxy import open_proxy
from tests.client.conftest import Peer, make_app, open_app, open_script, wait_state
from trioroom._wire.client_codec import CLIENT_CODECS
from trioroom._wire.envelopes import Hello, Ping
from trioroom.client import Backoff, FullInbox, link
from trioroom.client.dialing import WatchedStream
from trioroom.testing import open_test_server


async def answer_pings(peer: Peer, times: list[float]) -> None:
    while True:
        ping = await peer.hear()
        assert ping["type"] == "ping"
        times.append(trio.current_time())
        await peer.say({"type": "ok", "id": ping["id"]})


async def test_silence_is_asked_about_and_an_answer_is_enough(autojump_clock: MockClock) -> None:
    times: list[float] = []
    async with open_script() as (script, line), line.open_client() as client:
        line.nursery.start_soon(answer_pings, await script.accept(), times)
        await trio.sleep(60)
        assert times == pytest.approx([25.0, 50.0], abs=0.1)
        assert client.state.name == "open"
        line.nursery.cancel_scope.cancel()


async def test_connection_on_which_nothing_comes_is_dropped(autojump_clock: MockClock) -> None:
    async with open_script() as (script, line), line.open_client() as client:
        await script.accept()
        await client.wait_open()
        waiting = await wait_state(client, "waiting")
        assert trio.current_time() == pytest.approx(35.0, abs=0.1)
        assert "nothing has come for 35 s" in str(waiting.error)


async def test_anything_at_all_is_life(autojump_clock: MockClock) -> None:
    """Also an answer that does not know the request, and the pings of RFC 6455, which come to no application."""
    async with open_script() as (script, line), line.open_client() as client:
        peer = await script.accept()
        for _ in range(4):
            await trio.sleep(20)
            await peer.ws.pong(b"")
        with trio.move_on_after(24) as silence:
            await peer.hear()
        assert silence.cancelled_caught, "it has not asked"
        ping = await peer.hear()
        await peer.say({"type": "error", "id": ping["id"], "code": "unknown_type", "message": "what?", "retry": False})
        await trio.sleep(20)
        assert client.state.name == "open"


async def test_server_without_heartbeat_is_asked_all_the_same(autojump_clock: MockClock) -> None:
    async with open_script(ping_interval=None) as (script, line), line.open_client() as client:
        peer = await script.accept()
        with trio.fail_after(26):
            assert (await peer.hear())["type"] == "ping"
        waiting = await wait_state(client, "waiting")
        assert "nothing has come for 35 s" in str(waiting.error)


async def test_client_that_does_not_read_does_not_judge(autojump_clock: MockClock) -> None:
    app = make_app()
    async with open_app(app, ping_interval=200, ping_timeout=100) as line:
        async with line.open_client(full_inbox=FullInbox.WAIT) as client, client.join("news/a", max_inbox=1) as room:
            for number in range(10):
                await app.publish("news/a", number)
            await trio.sleep(290)  # longer than the client would wait, and the server just does
            assert [(await anext(room)).data for _ in range(10)] == list(range(10))
            assert line.dials == 1


async def test_network_that_swallows_everything_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PING_TIMEOUT", 0.3)
    settings = trioroom.Settings(
        ping_interval=0.5, ping_timeout=0.3, drain_timeout=2.0, close_timeout=1.0, leave_timeout=1.0
    )
    app = make_app()
    async with open_test_server(app, settings, timeout=20, tcp=True) as server, open_proxy(server.port) as proxy:
        async with trioroom.connect(f"ws://127.0.0.1:{proxy.port}/") as client, client.join("news/a") as room:
            await app.publish("news/a", "before")
            assert (await anext(room)).data == "before"
            proxy.black_hole()
            await app.publish("news/a", "meanwhile")
            await wait_state(client, "waiting")
            proxy.heal()
            assert (await anext(room)).data == "meanwhile"


async def test_connection_that_is_reset_is_made_again() -> None:
    app = make_app()
    async with open_test_server(app, timeout=20, tcp=True) as server, open_proxy(server.port) as proxy:
        connecting = trioroom.connect(f"ws://127.0.0.1:{proxy.port}/", backoff=Backoff(most=0.1))
        async with connecting as client, client.join("news/a") as room:
            for number in range(5):
                proxy.reset()
                await app.publish("news/a", number)
                assert (await anext(room)).data == number


class HeldBack:
    """A WebSocket on which a message takes until it is let go."""

    def __init__(self) -> None:
        self.released = trio.Event()

    async def send_message(self, message: str | bytes) -> None:
        await self.released.wait()


async def test_connection_may_be_lost_in_the_moment_in_which_a_frame_is_written() -> None:
    ours, _ = memory_stream_pair()
    ws, answers = HeldBack(), list[link.Answer]()
    async with trio.open_nursery() as nursery:
        hello = Hello("c0ffee", 25.0, 65_536)
        held = link.Link(cast(WebSocketConnection, ws), WatchedStream(ours), CLIENT_CODECS["json"], hello, nursery)
        nursery.start_soon(held.write)
        held.ask_together([(Ping, answers.append)])
        await wait_all_tasks_blocked()
        ws.released.set()  # the writer is to go on, and before it does
        held.lose()  # the reader has found that nothing comes any more
        await wait_all_tasks_blocked()
        assert answers == [None]
        nursery.cancel_scope.cancel()
