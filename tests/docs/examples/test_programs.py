"""Servers in programs of their own."""

from __future__ import annotations

import re
import signal
import subprocess
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


def said_until(process: subprocess.Popen[str], name: str) -> str:
    """All that is printed up to the end of the span of this name; blocks."""
    assert process.stdout is not None
    output = ""
    while not re.search(rf'^    "name": "{name}"(.*\n)+}}$', output, re.M):
        line = process.stdout.readline()
        assert line, output
        output += line
    return output


async def test_traced_server_prints_its_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")  # milliseconds between two looks what there is to print
    with trio.fail_after(DEADLINE), running("-c", "import trio, traced; trio.run(traced.main, 0)") as process:
        async with open_websocket_url(url_of(process)) as one:
            await one.send_message("hello")
        # Ctrl-C in a hook would end that hook, and there would be no span of it.
        output = await trio.to_thread.run_sync(said_until, process, "on_leave Chat", abandon_on_cancel=True)
        stop(process)
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


def test_tests_of_the_how_to_pass() -> None:
    tests = ["test_chat.py", "test_reconnect.py", "test_faults.py", "test_with_fixture.py", "test_own_backplane.py"]
    page = (ROOT / "docs" / "howto" / "test-your-rooms.md").read_text("utf-8")
    assert re.findall(r"examples/(test_\w+\.py)", page) == tests
    config = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", ".", "--import-mode=prepend", "-n0"]
    with running("-m", "pytest", "-q", "-p", "pytest_trioroom", "-p", "no:cacheprovider", *config, *tests) as process:
        output, _ = process.communicate(timeout=DEADLINE)
    assert re.search(r"^\d+ passed in", output, re.M), output
