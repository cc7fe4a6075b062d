"""``trioroom join``, in a process of its own between pipes, as in a terminal's place."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

import trioroom
from tests.backplane.processes import free_port
from tests.cli.conftest import DEADLINE, run
from tests.client.conftest import make_app
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import open_test_server


class Join:
    """The process, and what it says."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.output = ""
        self.errors = ""
        self._said = trio.Event()

    async def listen(self, *, to_errors: bool) -> None:
        stream = self.process.stderr if to_errors else self.process.stdout
        assert stream is not None
        async for data in stream:
            if to_errors:
                self.errors += data.decode()
            else:
                self.output += data.decode()
            self._said.set()
            self._said = trio.Event()

    async def wait_said(self, pattern: str) -> None:
        """On either."""
        while not (re.search(pattern, self.output) or re.search(pattern, self.errors)):
            await self._said.wait()

    async def type(self, line: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(f"{line}\n".encode())

    async def end_input(self) -> int:
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        return await self.process.wait()


@asynccontextmanager
async def open_join(port: int, room: str, *options: str) -> AsyncIterator[Join]:
    command = [sys.executable, "-m", "trioroom", "join", f"ws://127.0.0.1:{port}/", room, *options]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = await trio.lowlevel.open_process(command, **pipes)  # type: ignore[call-overload]  # as its types say
    join = Join(process)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: join.listen(to_errors=False))
            nursery.start_soon(lambda: join.listen(to_errors=True))
            try:
                yield join
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()


async def test_lines_are_said_and_what_others_say_is_printed() -> None:
    async with open_test_server(make_app(), tcp=True) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        async with trioroom.connect(url) as client, client.join("news/a") as room:
            await room.publish("earlier")
            async with open_join(server.port, "news/a", "--history", "5") as join:
                await join.wait_said(r"\w{16}: earlier\n")
                await join.type("hello")
                assert (await anext(room)).data == "hello"
                await room.publish({"x": 1})
                await join.wait_said(r'\w{16}: \{"x":1\}\n')
                await room.publish(b"\x00\x01")
                await join.wait_said(r"\w{16}: \(2 bytes\)\n")
                assert await join.end_input() == 0
                assert join.errors == "* connected\n* joined news/a\n"


async def test_json_goes_both_ways_and_what_is_none_is_told() -> None:
    async with open_test_server(make_app(), tcp=True) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        async with trioroom.connect(url) as client, client.join("chat/a") as room:
            async with open_join(server.port, "chat/a", "--json", "--codec", "msgpack") as join:
                await join.type("{no json")
                await join.wait_said("not said: not JSON")
                await join.type('["a", 1]')
                assert (await anext(room)).data == ["a", 1]
                await room.publish("text")
                await join.wait_said(r'\w{16}: "text"\n')
                await join.type('"' + "x" * 70_000 + '"')
                await join.wait_said("not said: .* max_message_bytes")
                assert await join.end_input() == 1


async def test_who_is_here_is_told() -> None:
    async with open_test_server(make_app(), tcp=True) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        async with open_join(server.port, "lounge/a", "--presence", "--token", "ann") as join:
            await join.wait_said(r"\* 1 here: ann\n")
            async with trioroom.connect(url, token="bob") as client, client.join("lounge/a"):
                await join.wait_said(r"\* bob is here\n")
            await join.wait_said(r"\* bob left\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_leaves_politely(number: signal.Signals) -> None:
    async with open_test_server(make_app(), tcp=True) as server, open_join(server.port, "chat/a") as join:
        await join.wait_said("joined chat/a")
        join.process.send_signal(number)
        assert await join.process.wait() == 0
        assert "Traceback" not in join.errors
        assert server.connection_count == 0


async def test_what_was_not_said_is_remembered_when_a_signal_ends_it() -> None:
    async with open_test_server(make_app(), tcp=True) as server, open_join(server.port, "chat/a", "--json") as join:
        await join.type("{no json")
        await join.wait_said("not said: not JSON")
        join.process.send_signal(signal.SIGINT)
        assert await join.process.wait() == 1


async def test_piped_input_is_all_said() -> None:
    async with open_test_server(make_app(), tcp=True) as server:
        async with trioroom.connect(f"ws://127.0.0.1:{server.port}/") as client, client.join("news/a") as room:
            async with open_join(server.port, "news/a") as join:
                for number in range(20):
                    await join.type(str(number))
                assert await join.end_input() == 0
            assert [(await anext(room)).data for _ in range(20)] == [str(number) for number in range(20)]


async def test_server_that_restarts_is_told_and_come_back_to() -> None:
    app, backplane, port = make_app(), MemoryBackplane(), free_port()
    async with open_join(port, "news/a") as join:
        await join.wait_said("not connected: .*again in")
        async with trioroom.open_server(app, port=port, backplane=backplane):
            await join.wait_said("joined news/a")
        await join.wait_said("not connected: .*drains.*again in")
        async with trioroom.open_server(app, port=port, backplane=backplane):
            await app.publish("news/a", "meanwhile")
            await join.wait_said("meanwhile")


async def test_what_cannot_be_joined_is_one_line() -> None:
    async with open_test_server(make_app(), tcp=True) as server:
        async with open_join(server.port, "nowhere") as join:
            assert await join.process.wait() == 1
            await join.wait_said("Error: the server refused: no room is called 'nowhere'")


def test_url_that_is_none_is_a_usage_error() -> None:
    result = run("join", "http://host/", "a")
    assert result.exit_code == 2
    assert "is no URL of the kind ws or wss" in result.output
