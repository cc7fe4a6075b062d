"""The tutorial, step by step: its files in a folder, its commands, a browser, and the plug pulled."""

from __future__ import annotations

import re
import shlex
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
from tests.cli.conftest import Command, open_command, open_remote_peer

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "docs" / "tutorial" / name for name in ("first-room.md", "running-chat.md")]
TEXT = "\n".join(page.read_text("utf-8") for page in PAGES)
GAP = "something may be missing here"
DEADLINE = 90

# The commands of the pages. Those of this module are run here, with another port.
SERVE_ECHO = "trioroom serve first_room:app --port 8000"
SPEAK_TO_ECHO = "python plain_client.py ws://127.0.0.1:8000/echo"
SERVE_CHAT = "trioroom serve chat:app --port 8000"
SPEAK_IN_CHAT = "python plain_client.py ws://127.0.0.1:8000/chat/lobby"
SERVE = "trioroom serve running_chat:app --port 8000"
SPEAK = "python running_chat_client.py ws://127.0.0.1:8000/ carol"
LOOK = "trioroom join ws://127.0.0.1:8000/ chat/lobby --token dave --history 10"
SERVE_BY_TWO = f"{SERVE} --workers 2 --backplane embedded"
SERVE_WITH_BROKER = f"{SERVE} --backplane redis://127.0.0.1"
TEST = "python -m pytest -o trio_mode=true test_running_chat.py"
RUN_HERE = {
    SERVE_ECHO, SPEAK_TO_ECHO, SERVE_CHAT, SPEAK_IN_CHAT, SERVE, SPEAK, LOOK, SERVE_BY_TWO, SERVE_WITH_BROKER, TEST
}  # fmt: skip
RUN_ELSEWHERE = {
    "trioroom demo",  # tests/demo
    "python in_a_program.py",  # test_examples.py
}
INSTALLING = {  # what the tests' own environment has been through
    "mkdir my-chat",
    "cd my-chat",
    "python3 -m venv .venv",
    "python -m pip install ../trioroom",
    "python -m pip install '../trioroom[embedded]'",
    "python -m pip install pytest pytest-trio",
}


def arguments(command: str, port: int) -> list[str]:
    """What follows the program in one of these commands, with this port for the one on the page."""
    return shlex.split(command.replace("8000", str(port)))[1:]


def test_each_command_of_the_pages_is_run() -> None:
    blocks = re.findall(r"^```sh\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE)
    commands = {line.removeprefix(".venv/bin/") for block in blocks for line in block.splitlines()}
    assert commands == RUN_HERE | RUN_ELSEWHERE | INSTALLING


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a reader has saved who did what the pages say: each file by the name that stands above it."""
    included = re.findall(r"literalinclude} \.\./examples/(\S+)", TEXT)
    assert len(included) == 9
    for name in included:
        assert f"`{Path(name).name}`" in TEXT
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "docs" / "examples" / name, tmp_path / name)
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
    """A client in a terminal."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self.output = ""
        self._said = trio.Event()
        self._ended = False

    async def say(self, text: str) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(text.encode() + b"\n")

    async def wait_said(self, text: str) -> None:
        while text not in self.output:
            assert not self._ended, self.output
            await self._said.wait()

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async with self._process.stdout as stdout:
            async for data in stdout:
                self.output += data.decode()
                self._said.set()
                self._said = trio.Event()
        self._ended = True
        self._said.set()

    async def wait_ended(self) -> int:
        """After Ctrl-D."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        with trio.fail_after(10):
            return await self._process.wait()


@asynccontextmanager
async def open_program(folder: Path, command: str, port: int) -> AsyncIterator[Program]:
    module = ["-m", "trioroom"] if command.startswith("trioroom ") else []
    words = [sys.executable, "-u", *module, *arguments(command, port)]
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            words, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        program = Program(process)
        nursery.start_soon(program.listen)
        try:
            yield program
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()


def serve(folder: Path, command: str, port: int) -> AbstractAsyncContextManager[Command]:
    return open_command(*arguments(command, port), directory=folder)


async def press_ctrl_c(server: Command) -> None:
    server.process.send_signal(signal.SIGINT)
    assert await server.wait_ended() == 0, server.output


async def test_first_room_answers(folder: Path) -> None:
    port = free_port()
    with trio.fail_after(DEADLINE):
        async with serve(folder, SERVE_ECHO, port) as server:
            await server.wait_port()
            assert "trioroom serves http://127.0.0.1:8000/ (Ctrl-C stops)" in TEXT
            assert f"trioroom serves http://127.0.0.1:{port}/ (Ctrl-C stops)" in server.output
            async with open_program(folder, SPEAK_TO_ECHO, port) as program:
                await program.say("hello")
                await program.wait_said("hello")
                assert await program.wait_ended() == 0
            await press_ctrl_c(server)
        async with open_program(folder, SPEAK_TO_ECHO, port) as program:
            await program.wait_said("not connected: ")  # in a line, as readers forget to start the server
            assert "Traceback" not in program.output


async def test_chat_tells_who_came_what_was_said_and_who_left(folder: Path) -> None:
    port = free_port()
    with trio.fail_after(DEADLINE):
        async with serve(folder, SERVE_CHAT, port) as server:
            await server.wait_port()
            async with (
                open_remote_peer(port, "/chat/lobby") as witness,
                open_program(folder, SPEAK_IN_CHAT, port) as one,
            ):
                assert "came to lobby" in str(await witness.receive())  # so it is in, and misses nobody who comes
                async with open_program(folder, SPEAK_IN_CHAT, port) as two:
                    await one.wait_said("came to lobby")
                    await two.say("hello")
                    await one.wait_said(": hello")
                    assert await two.wait_ended() == 0
                await one.wait_said(" left: closed with 1000")
                server.process.send_signal(signal.SIGINT)
                await one.wait_said("the server drains")
            assert await server.wait_ended() == 0, server.output


@pytest.mark.browser
async def test_page_and_program_talk_and_come_back_with_a_gap_where_memory_was_lost(
    folder: Path, chromium: Chrome
) -> None:
    port, tab = free_port(), Tab(chromium)
    with trio.fail_after(DEADLINE):
        async with serve(folder, SERVE, port) as server:
            await server.wait_port()
            await tab.open(port)
            async with open_program(folder, SPEAK, port) as program:
                await program.wait_said("* here: ann, carol")
                await tab.wait("here", "ann, carol")
                await program.say("hello")
                await tab.wait("messages", "carol: hello")
                await tab.say("welcome")
                await program.wait_said("ann: welcome")
                async with open_program(folder, LOOK, port) as look:
                    await look.wait_said('"welcome"')
                    await program.wait_said("* here: ann, carol, dave")
                await press_ctrl_c(server)
                await tab.wait("state", "waiting")
                await program.wait_said("* waiting")
                await tab.say("are you there?")
                await program.say("for ever")
                async with serve(folder, SERVE, port):
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
            command = SERVE_WITH_BROKER.replace("redis://127.0.0.1", valkey.url)
            async with serve(folder, command, port) as server, serve(folder, command, other := free_port()):
                await server.wait_port()
                await tab.open(port)
                async with open_program(
                    folder, SPEAK, other
                ) as program:  # at the other server: in one room all the same
                    await program.wait_said("* here: ann, carol")
                    await press_ctrl_c(server)
                    await tab.wait("state", "waiting")
                    await program.say("you missed this")
                    await program.wait_said("carol: you missed this")
                    async with serve(folder, command, port):
                        await tab.wait("messages", "carol: you missed this")
                        await program.say("and this is live")
                        await tab.wait("messages", "carol: and this is live")
                        assert GAP not in "".join(await tab.messages())


@pytest.mark.redis
async def test_two_workers_are_one_room(folder: Path) -> None:
    port = free_port()
    with trio.fail_after(DEADLINE):
        async with serve(folder, SERVE_BY_TWO, port) as server:
            await server.wait_said(r"\(2 workers; ")
            async with open_program(folder, SPEAK, port) as carol:
                await carol.wait_said("* here: carol")
                async with open_program(folder, SPEAK.replace("carol", "erin"), port) as erin:
                    await erin.wait_said("* here: carol, erin")
                    await erin.say("hello")
                    await carol.wait_said("erin: hello")
            await press_ctrl_c(server)


async def test_test_of_the_page_passes(folder: Path) -> None:
    with trio.fail_after(DEADLINE):
        async with open_program(folder, TEST, 0) as pytest_process:
            await pytest_process.wait_said("3 passed")
