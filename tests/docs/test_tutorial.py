"""The tutorial, step by step: its files in a folder, its commands, a browser, and the plug pulled."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from tests.backplane.processes import free_port
from tests.backplane.redis.servers import binaries, open_redis_server
from tests.cli.conftest import Command, open_command

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "tutorial" / "running-chat.md"
GAP = "something may be missing here"
DEADLINE = 90


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a reader has saved who did what the page says."""
    included = re.findall(r"literalinclude} (\S+)", PAGE.read_text("utf-8"))
    assert len(included) == 4
    for name in included:
        source = (PAGE.parent / name).resolve()
        target = tmp_path / source.relative_to(ROOT / "docs" / "examples")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(source, target)
    return tmp_path


class Tab:
    """The page, in a browser that is driven from a thread."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    async def do(self, act: Callable[[Chrome], object]) -> None:
        await trio.to_thread.run_sync(act, self.driver)

    async def open(self, port: int) -> None:
        await self.do(lambda driver: driver.get(f"http://127.0.0.1:{port}/?name=ann"))
        await self.wait("state", "open")

    async def say(self, text: str) -> None:
        await self.do(lambda driver: driver.find_element("name", "text").send_keys(text + Keys.ENTER))

    async def wait(self, id: str, text: str) -> None:
        """Until ``text`` stands in the element of this id."""

        def is_there(driver: Chrome) -> bool:
            return text in driver.find_element("id", id).text

        waiting = WebDriverWait(self.driver, 30, poll_frequency=0.05)
        await self.do(lambda _: waiting.until(is_there, message=f"{text} in {id}"))

    async def messages(self) -> list[str]:
        texts: list[str] = []
        await self.do(lambda driver: texts.extend(driver.find_element("id", "messages").text.splitlines()))
        return texts


class Program:
    """``running_chat_client.py`` in a terminal."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self.output = ""
        self._said = trio.Event()

    async def say(self, text: str) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(text.encode() + b"\n")

    async def wait_said(self, text: str) -> None:
        while text not in self.output:
            await self._said.wait()

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async with self._process.stdout as stdout:
            async for data in stdout:
                self.output += data.decode()
                self._said.set()
                self._said = trio.Event()

    async def wait_ended(self) -> int:
        """After Ctrl-D."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        with trio.fail_after(10):
            return await self._process.wait()


@asynccontextmanager
async def open_program(folder: Path, port: int) -> AsyncIterator[Program]:
    command = [sys.executable, "-u", "running_chat_client.py", f"ws://127.0.0.1:{port}/", "carol"]
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        program = Program(process)
        nursery.start_soon(program.listen)
        try:
            yield program
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()


def serve(folder: Path, port: int, *options: str) -> AbstractAsyncContextManager[Command]:
    """The command of the page."""
    command = "trioroom serve running_chat:app --port 8000"
    assert command in PAGE.read_text("utf-8")
    words = command.replace("8000", str(port)).split()[1:]
    return open_command(*words, *options, directory=folder)


async def press_ctrl_c(server: Command) -> None:
    server.process.send_signal(signal.SIGINT)
    assert await server.wait_ended() == 0, server.output


@pytest.mark.browser
async def test_page_and_program_talk_and_come_back_with_a_gap_where_memory_was_lost(
    folder: Path, chromium: Chrome
) -> None:
    port, tab = free_port(), Tab(chromium)
    with trio.fail_after(DEADLINE):
        async with serve(folder, port) as server:
            await server.wait_port()
            await tab.open(port)
            async with open_program(folder, port) as program:
                await program.wait_said("* here: ann, carol")
                await tab.wait("here", "ann, carol")
                await program.say("hello")
                await tab.wait("messages", "carol: hello")
                await tab.say("welcome")
                await program.wait_said("ann: welcome")
                await press_ctrl_c(server)
                await tab.wait("state", "waiting")
                await tab.say("are you there?")
                await program.say("for ever")
                async with serve(folder, port):
                    await tab.wait("messages", "ann: are you there?")
                    await program.wait_said("carol: for ever")
                    await program.say("both of us")
                    await tab.wait("messages", "carol: both of us")
                    assert [GAP in line for line in await tab.messages()].count(True) == 1
                    assert GAP in program.output
                    assert await program.wait_ended() == 0
                    await tab.wait("here", "ann")


@pytest.mark.browser
@pytest.mark.redis
async def test_history_in_a_broker_leaves_no_gap(folder: Path, chromium: Chrome) -> None:
    port, tab = free_port(), Tab(chromium)
    with trio.fail_after(DEADLINE):
        async with open_redis_server(binaries()["valkey"]) as valkey:
            async with (
                serve(folder, port, "--backplane", valkey.url) as server,
                serve(folder, other := free_port(), "--backplane", valkey.url),
            ):
                await server.wait_port()
                await tab.open(port)
                async with open_program(folder, other) as program:  # at the other server: in one room all the same
                    await program.wait_said("* here: ann, carol")
                    await press_ctrl_c(server)
                    await tab.wait("state", "waiting")
                    await program.say("you missed this")
                    await program.wait_said("carol: you missed this")
                    async with serve(folder, port, "--backplane", valkey.url):
                        await tab.wait("messages", "carol: you missed this")
                        await program.say("and this is live")
                        await tab.wait("messages", "carol: and this is live")
                        assert GAP not in "".join(await tab.messages())
