"""Clients that are programs of their own."""

from __future__ import annotations

from functools import partial

import trio
from trio_websocket import open_websocket_url

from tests.backplane.processes import free_port
from tests.docs.examples.running import DEADLINE, running, stop, text_from, url_of
from trioroom import App, History, Room, open_server
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import open_v1_peer


class Chat(Room):
    history = History(100)


async def test_client_shows_what_comes_and_sends_what_is_typed() -> None:
    with trio.fail_after(DEADLINE), running("in_a_program.py") as server:
        url = url_of(server)
        async with open_websocket_url(url) as witness:
            with running("plain_client.py", url) as client:
                assert "came to lobby" in await text_from(witness)
                assert client.stdin is not None
                client.stdin.write("hello\n")
                client.stdin.flush()
                assert (await text_from(witness)).endswith(": hello")
                await witness.send_message("good day")
                assert client.stdout is not None
                assert client.stdout.readline().endswith(": good day\n")
                client.communicate(timeout=DEADLINE)  # closes its input, and so the client ends
                assert client.returncode == 0
        stop(server)


async def test_chat_client_goes_on_over_a_restart_of_its_server() -> None:
    app = App()
    app.route("chat/{name}", Chat)
    backplane, port = MemoryBackplane(), free_port()
    with trio.fail_after(DEADLINE), running("chat_client.py", f"ws://127.0.0.1:{port}/", "chat/lobby") as client:
        assert client.stdin is not None
        assert client.stdout is not None
        next_line = partial(trio.to_thread.run_sync, client.stdout.readline)
        assert "not connected" in await next_line()
        async with open_server(app, port=port, backplane=backplane) as server, open_v1_peer(server) as v1:
            while "joined chat/lobby" not in await next_line():
                pass
            await v1.join("chat/lobby")
            client.stdin.write("hello\n")
            client.stdin.flush()
            assert (await v1.receive())["data"] == "hello"
        async with open_server(app, port=port, backplane=backplane) as server, open_v1_peer(server) as v1:
            await app.publish("chat/lobby", "meanwhile")
            while not (await next_line()).endswith(": meanwhile\n"):
                pass  # not connected; and its own words, as it is another member now
            await v1.join("chat/lobby")
            client.stdin.close()
            while await next_line():
                pass
            assert client.wait() == 0
