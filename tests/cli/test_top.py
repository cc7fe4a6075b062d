"""``trioroom top`` in a process of its own, at a real terminal: a pty, read as a terminal would."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import ssl
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trustme

import trioroom
from tests.backplane.processes import free_port
from tests.cli.conftest import DEADLINE, open_command
from trioroom.testing import open_peer

KEY = "correct-horse-battery"
TAKE_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, sys.argv[1:])
"""
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


@asynccontextmanager
async def open_site(api_key: str | None = KEY, port: int = 0) -> AsyncIterator[trioroom.Server]:
    app = trioroom.App()
    app.route("chat/{name}", trioroom.Room)
    async with trioroom.open_server(app, port=port, api_key=api_key) as server:
        yield server


def environment(key: str | None = KEY) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("TRIOROOM_API_KEY", "NO_COLOR")}
    return {**inherited, "TERM": "xterm-256color", **({} if key is None else {"TRIOROOM_API_KEY": key})}


async def run_top(*arguments: str, key: str | None = KEY) -> subprocess.CompletedProcess[bytes]:
    """To its end, with pipes for a terminal."""
    command = [sys.executable, "-m", "trioroom", "top", *arguments]
    with trio.fail_after(DEADLINE):
        return await trio.run_process(
            command, check=False, capture_stdout=True, capture_stderr=True, env=environment(key)
        )


@attrs.define
class Terminal:
    """The other end of the pty."""

    process: trio.Process
    descriptor: int
    shown: str = ""
    _came: trio.Event = attrs.Factory(trio.Event)

    async def read(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.descriptor)
            try:
                data = os.read(self.descriptor, 65_536)
            except OSError:  # what Linux says when the last process has closed the terminal
                data = b""
            if not data:
                return
            self.shown += data.decode("utf-8", "replace")
            self._came.set()
            self._came = trio.Event()

    async def wait_shown(self, pattern: str, since: int = 0) -> None:
        while not re.search(pattern, self.shown[since:]):
            await self._came.wait()

    def press(self, key: bytes) -> None:
        os.write(self.descriptor, key)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def modes(self) -> object:
        return termios.tcgetattr(self.descriptor)


@asynccontextmanager
async def open_terminal(*arguments: str, columns: int = 100, lines: int = 30) -> AsyncIterator[Terminal]:
    """``trioroom top`` at a terminal of this size; it is to end before this does."""
    ours, theirs = pty.openpty()
    # The terminal is made the controlling one, so that it sends signals for its keys and its size.
    command = [sys.executable, "-c", TAKE_TERMINAL, sys.executable, "-m", "trioroom", "top", *arguments]
    try:
        terminal = Terminal(None, ours)  # type: ignore[arg-type]  # there is none yet
        terminal.resize(columns, lines)
        os.set_blocking(ours, False)
        process = await trio.lowlevel.open_process(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment()
        )
        terminal.process = process
        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(terminal.read)
                try:
                    yield terminal
                finally:
                    process.kill()
                    with trio.CancelScope(shield=True):
                        await process.wait()
                    nursery.cancel_scope.cancel()
    finally:
        os.close(theirs)
        os.close(ours)


def url_of(server: trioroom.Server) -> str:
    return f"http://127.0.0.1:{server.port}"


# -- at a terminal ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [b"q", b"\x03", b"\x04"], ids=["q", "Ctrl-C", "Ctrl-D"])
async def test_key_ends_it_and_the_terminal_is_as_before(key: bytes) -> None:
    async with open_site() as server, open_terminal(url_of(server)) as terminal:
        before = terminal.modes()
        await terminal.wait_shown("nobody is behind")
        assert terminal.shown.startswith(ENTER)
        assert terminal.modes() != before
        terminal.press(key)
        assert await terminal.process.wait() == 0
        await terminal.wait_shown(re.escape(LEAVE))
        assert terminal.modes() == before
        assert "Traceback" not in terminal.shown


async def test_signal_ends_it_too() -> None:
    async with open_site() as server, open_terminal(url_of(server)) as terminal:
        await terminal.wait_shown("nobody is behind")
        terminal.process.send_signal(signal.SIGTERM)
        assert await terminal.process.wait() == 0
        await terminal.wait_shown(re.escape(LEAVE))


async def test_figures_follow_the_server() -> None:
    async with open_site() as server, open_terminal(url_of(server)) as terminal:
        await terminal.wait_shown("no room is active")
        async with open_peer(server, "/chat/lobby"), open_peer(server, "/chat/lobby"):
            await terminal.wait_shown(r"chat/lobby\s+2\b")
            terminal.press(b"xyz")  # which mean nothing
            await terminal.wait_shown(r"cpu \x1b\[0m\x1b\[1m\d")  # the second look
        terminal.press(b"q")
        await terminal.process.wait()


async def test_it_is_as_large_as_the_terminal_becomes() -> None:
    async with open_site() as server, open_terminal(url_of(server), columns=150) as terminal:
        await terminal.wait_shown("VERSION")
        seen = len(terminal.shown)
        terminal.resize(60, 10)
        await terminal.wait_shown(r"\x1b\[H", seen)
        narrow = terminal.shown[seen:].partition("\x1b[H")[2].partition("\x1b[J")[0]
        assert "VERSION" not in narrow
        assert narrow.count("\r\n") < 10
        terminal.press(b"q")
        await terminal.process.wait()


async def test_stopped_it_gives_the_terminal_back_and_takes_it_again() -> None:
    async with open_site() as server, open_terminal(url_of(server)) as terminal:
        before = terminal.modes()
        await terminal.wait_shown("nobody is behind")
        terminal.press(b"\x1a")
        await terminal.wait_shown(re.escape(LEAVE))
        _, status = await trio.to_thread.run_sync(os.waitpid, terminal.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert terminal.modes() == before
        seen = len(terminal.shown)
        terminal.process.send_signal(signal.SIGCONT)
        await terminal.wait_shown("(?s)" + re.escape(ENTER) + ".*nobody is behind", seen)
        terminal.press(b"q")
        assert await terminal.process.wait() == 0


@asynccontextmanager
async def open_terminal_whose_server_goes() -> AsyncIterator[tuple[Terminal, int]]:
    """It has shown the server, which is gone now, and was at this port."""
    stop = trio.Event()

    async def serve(task_status: trio.TaskStatus[trioroom.Server]) -> None:
        async with open_site() as server:
            task_status.started(server)
            await stop.wait()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve)
        async with open_terminal(url_of(server)) as terminal:
            await terminal.wait_shown("nobody is behind")
            stop.set()
            await terminal.wait_shown("no answer")
            yield terminal, server.port


async def test_server_that_goes_away_is_told_and_one_that_is_back_is_shown() -> None:
    async with open_terminal_whose_server_goes() as (terminal, port):
        seen = len(terminal.shown)
        async with open_site(port=port):
            await terminal.wait_shown(r"1 node  \x1b\[K", seen)
            terminal.press(b"q")
            assert await terminal.process.wait() == 0


async def test_error_on_the_way_gives_the_terminal_back_and_is_one_line() -> None:
    async with open_terminal_whose_server_goes() as (terminal, port), open_site(None, port):
        assert await terminal.process.wait() == 1
        await terminal.wait_shown(re.escape(LEAVE) + r"Error: [^\n]* shows nothing: its server has no API key set")
        assert "Traceback" not in terminal.shown


# -- without one ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--once",)])
async def test_pipe_gets_it_once_as_text(arguments: tuple[str, ...]) -> None:
    async with open_site() as server, open_peer(server, "/chat/lobby"):
        result = await run_top(url_of(server), *arguments)
    assert result.returncode == 0
    text = result.stdout.decode()
    assert re.search(r"chat/lobby\s+1\s+0\s", text)
    assert re.search(r"cpu \d", text), "rates take two looks"
    assert "\x1b" not in text


async def test_json_is_what_the_server_says() -> None:
    async with open_site() as server:
        for url in (url_of(server), f"{url_of(server)}/_/", f"{url_of(server)}/_/nodes.json"):
            result = await run_top(url, "--json")
            assert [node["silent"] for node in json.loads(result.stdout)["nodes"]] == [False]


async def states(url: str) -> dict[int, str]:
    """By the pid of the worker, whether it is shown as up."""
    report = json.loads((await run_top(url, "--json")).stdout)
    return {
        int(node["snapshot"]["label"].rpartition(":")[2]): "silent" if node["silent"] else "up"
        for node in report["nodes"]
    }


@pytest.mark.redis
async def test_all_workers_are_shown_and_one_that_is_killed_is_silent(pids: Path) -> None:
    options = ("--workers", "2", "--backplane", "embedded", "--port", "0", "--api-key", KEY)
    async with open_command("serve", "pids:app", *options, directory=pids) as command:
        url = f"http://127.0.0.1:{await command.wait_port()}"
        with trio.fail_after(DEADLINE):
            while len(found := await states(url)) < 2:
                pass  # they find each other within a second or two
            assert set(found.values()) == {"up"}
            killed = min(found)
            os.kill(killed, signal.SIGKILL)
            while (found := await states(url)).get(killed) == "up" or list(found.values()).count("up") < 2:
                pass  # one that had not been asked before has not seen it


async def test_tls_is_spoken_with_whom_the_file_trusts() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    app = trioroom.App()
    with authority.cert_pem.tempfile() as ca_file:
        async with trioroom.open_server(app, port=0, ssl_context=context, api_key=KEY) as server:
            url = f"https://127.0.0.1:{server.port}"
            assert (await run_top(url, "--once", "--ca-file", ca_file)).returncode == 0
            refused = await run_top(url, "--once")
            assert refused.returncode == 1
            assert b"CERTIFICATE_VERIFY_FAILED" in refused.stderr


async def check_error(code: int, pattern: str, *arguments: str, key: str | None = KEY) -> None:
    result = await run_top(*arguments, "--once", key=key)
    said = result.stderr.decode()
    assert result.returncode == code, said
    assert re.search(pattern, said), said
    assert "Traceback" not in said
    assert KEY not in said


async def test_what_goes_wrong_is_one_line() -> None:
    async with open_site() as server:
        await check_error(1, "wants its API key; set TRIOROOM_API_KEY", url_of(server), key=None)
        await check_error(1, "has another API key", url_of(server), "--api-key", "wrong")
    async with open_site(None) as server:
        await check_error(1, "has no API key set", url_of(server))
    await check_error(
        1, "cannot reach [^ ]+: Connection refused; is the server running there", f"http://127.0.0.1:{free_port()}"
    )
    await check_error(2, "no URL of the kind http or https", "ws://127.0.0.1/")
    await check_error(2, "an API key in the URL would be seen by others", "http://x:secret@127.0.0.1/")


async def test_what_is_no_trioroom_is_told() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answers.pop(0))

    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", b"SSH-2.0-x\r\n", b"HTTP/1.1 500 No\r\n\r\n", b""]
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, answer, 0, host="127.0.0.1")
        [listener] = await nursery.start(serve)
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        await check_error(1, "answers with no figures", url)
        await check_error(1, "does not speak HTTP", url)
        await check_error(1, "answers with HTTP 500; is it trioroom", url)
        await check_error(1, "cannot reach", url)
        nursery.cancel_scope.cancel()
