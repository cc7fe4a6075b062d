"""Servers in programs of their own."""

from __future__ import annotations

import re
import signal
from functools import partial

import pytest
import trio
from trio_websocket import open_websocket_url

from tests.backplane.redis.servers import binaries, open_redis_server
from tests.docs.examples.running import DEADLINE, ROOT, running, say_until_heard, stop, text_from, url_of


async def test_server_in_a_program_serves_until_interrupted() -> None:
    with trio.fail_after(DEADLINE), running("in_a_program.py") as process:
        url = url_of(process)
        async with open_websocket_url(url) as one, open_websocket_url(url) as two:
            assert "came to lobby" in await text_from(one)
            await two.send_message("hello")
            assert (await text_from(one)).endswith(": hello")
        stop(process)


def test_server_in_a_program_dumps_its_tasks_on_a_signal() -> None:
    with running("-c", "import trio, dump_on_signal as d; trio.run(d.main, 0)") as process:
        url_of(process)
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        assert "tasks, counted in" in process.stdout.readline()
        stop(process)


async def test_traced_server_prints_its_spans() -> None:
    with trio.fail_after(DEADLINE), running("-c", "import trio, traced; trio.run(traced.main, 0)") as process:
        async with open_websocket_url(url_of(process)) as one:
            await one.send_message("hello")
        process.send_signal(signal.SIGINT)
        output = await trio.to_thread.run_sync(lambda: process.communicate(timeout=DEADLINE)[0])
    for name in ("on_join Chat", "on_message Chat", "publish", "on_leave Chat"):
        assert f'"name": "{name}"' in output, output
    assert '"service.name": "chat"' in output


@pytest.mark.redis
async def test_linked_servers_share_their_rooms() -> None:
    async with open_redis_server(binaries()["valkey"]) as broker:
        linked = partial(running, "linked.py", broker.url)
        with trio.fail_after(DEADLINE), linked() as here, linked() as there:
            # One member speaks v1, to be told when it is in the room: its server has to ask the broker for that.
            async with open_websocket_url(url_of(here), subprotocols=["trioroom.v1.json"]) as one:
                await one.send_message('{"type":"join","id":1,"room":"chat/lobby"}')
                while '"type":"ok"' not in await text_from(one):
                    pass
                async with open_websocket_url(url_of(there)) as two:
                    assert "came to lobby" in await text_from(one)
                    await two.send_message("hello")
                    assert ": hello" in await text_from(one)
            stop(here)
            stop(there)


async def test_rooms_are_shared_with_a_trio_websocket_server() -> None:
    program = "import trio, mounted; trio.run(mounted.main, 0)"
    with trio.fail_after(DEADLINE), running("-c", program) as process:
        assert process.stdout is not None
        mounted, own = re.findall(r"ws://\S+", process.stdout.readline())
        async with open_websocket_url(mounted) as one, open_websocket_url(own) as two:
            await say_until_heard(two, one, "hello")
            await say_until_heard(one, two, "good day")
        async with open_websocket_url(mounted.replace("/chat/lobby", "/time")) as clock:
            assert ":" in await text_from(clock)
        stop(process)


def test_tests_of_the_chat_pass() -> None:
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "--rootdir", "."]
    with running(*command, "--import-mode=prepend", "-n0", "test_chat.py") as process:
        output, _ = process.communicate(timeout=DEADLINE)
    assert "2 passed" in output, output
