"""``trioroom`` processes under Trio: what they say can be awaited, and so can the end of each process they started."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from click.testing import CliRunner, Result

from trioroom.cli import keeper, main
from trioroom.cli.keeper import StartWorker
from trioroom.cli.run import ServeOptions
from trioroom.cli.starting import start_interpreter
from trioroom.settings import Settings
from trioroom.testing import Peer

DEADLINE = 60.0  # seconds for anything that a process is to do: starting two workers on a busy machine takes some

PIDS = """
import os
import trioroom

class Pids(trioroom.Room):
    async def on_message(self, member, message):
        if message.data == "pid?":
            member.send(str(os.getpid()))
        else:
            await self.publish(message.data)

app = trioroom.App()
app.route("pids/{name}", Pids)
"""

STARTS_A_THREAD = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
"""What an application may not do on import if its workers are to be forks."""
NO_FORKS = "workers do not share memory, as importing the application has started threads\n"
"""What is said then."""


@pytest.fixture(autouse=True)
def signals_are_those_of_before() -> Iterator[None]:
    """A command that runs in this process leaves them as if it ended."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def without_confluent_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it was not installed."""
    for name in [name for name in sys.modules if name.startswith("trioroom.backplane.kafka")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    """A directory with ``pids:app``, which tells who asks in which process its connection is."""
    (tmp_path / "pids.py").write_text(PIDS)
    return tmp_path


class Command:
    """A ``trioroom`` process, the leader of a process group as in a terminal; made by `open_command`."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.output = ""
        """What it and its workers have said so far, on standard output and error."""
        self._said = trio.Event()
        self._silent = trio.Event()

    async def wait_said(self, pattern: str) -> re.Match[str]:
        """The first match in what is said, sooner or later; a failure when all who could say it have ended."""
        with trio.fail_after(DEADLINE):
            while (found := re.search(pattern, self.output)) is None:
                assert not self._silent.is_set(), self.output
                await self._said.wait()
        return found

    async def wait_port(self) -> int:
        return int((await self.wait_said(r"trioroom serves https?://127\.0\.0\.1:(\d+)/"))[1])

    async def wait_ended(self) -> int:
        """Its exit code, when it and its workers, which hold the same standard output, have ended."""
        with trio.fail_after(DEADLINE):
            await self._silent.wait()
            return await self.process.wait()

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        async for data in self.process.stdout:
            self.output += data.decode()
            self._said.set()
            self._said = trio.Event()
        self._silent.set()
        self._said.set()


@asynccontextmanager
async def open_command(*arguments: str, directory: Path | None = None) -> AsyncIterator[Command]:
    """Run ``trioroom`` with these arguments; at the end it is killed, and all that it has started is to end with it."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "trioroom", *arguments],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    command = Command(process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(command._listen)
        try:
            yield command
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await process.wait()
        await command.wait_ended()


@asynccontextmanager
async def open_remote_peer(port: int, path: str) -> AsyncIterator[Peer]:
    """A member of the room ``path`` of a server in another process; leaving drops it without a close frame."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        peer = Peer(stream)
        await stream.send_all(
            f"GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        while not peer.head.endswith(b"\r\n\r\n"):
            byte = await stream.receive_some(1)  # what follows the head is left in the stream
            assert byte, peer.head
            peer.head += byte
        assert peer.head.startswith(b"HTTP/1.1 101 "), peer.head
        yield peer


def serve_options(**changed: Any) -> ServeOptions:
    """What the command line would give."""
    options = ServeOptions(
        host="127.0.0.1", port=0, tls_cert=None, tls_key=None, settings=Settings(), log_level="info", log_format="text",
        opentelemetry=False,        backplane="memory", api_key=None, workers=1, port_per_worker=False, worker=False,
        fork_server=False,
    )  # fmt: skip
    return attrs.evolve(options, **changed)


def run(*arguments: str) -> Result:
    """``trioroom`` with these arguments in this process, for what ends by itself."""
    return CliRunner().invoke(main, list(arguments))


def descendants(pid: int) -> set[int]:
    """All processes that ``pid`` has started, those they have, and so on."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended since we saw it
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


class Ends:
    """Waits for processes that are not our children, once they have been given."""

    def __init__(self, pids: set[int]) -> None:
        self._watched = {pid: os.pidfd_open(pid) for pid in pids}

    async def wait(self) -> None:
        """Returns when all have ended; fails when one has not in time."""
        try:
            for descriptor in self._watched.values():
                with trio.fail_after(DEADLINE):
                    await trio.lowlevel.wait_readable(descriptor)
        finally:
            for descriptor in self._watched.values():
                os.close(descriptor)


# -- workers that are stand-ins ------------------------------------------------------------------------

PRELUDE = "import os, signal, sys, time\nserve = lambda patience=20: os.write(0, b'serving %g\\n' % patience)\n"


def command_of(*lines: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", PRELUDE + "\n".join(lines)]


def stand_in(*lines: str) -> StartWorker:
    return partial(start_interpreter, command_of(*lines), None)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> trio.MemoryReceiveChannel[str]:
    """What the supervisor logs."""
    send, receive = trio.open_memory_channel[str](100)
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: send.send_nowait(record.getMessage()))
    monkeypatch.setattr(keeper.log, "handlers", [handler])
    return receive
