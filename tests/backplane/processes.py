"""Server processes for tests: each on ports of its own, and gone with the tests."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio
from redis.exceptions import ResponseError

from tests.side_by_side import own_ports

SETTLE_TIMEOUT: Final = 20.0  # until several servers have found each other; it takes about two seconds
ANSWER_TIMEOUT: Final = 10.0  # for a reply, and for a process to start or to end
POLL_INTERVAL: Final = 0.02

_ports: Final = itertools.cycle(own_ports())  # each is handed out once

# Has the kernel kill the server when the thread that started it ends, even by SIGKILL. A preexec_fn could do the same,
# but forking with one warns from Python 3.12 on when there are other threads, and Trio keeps some.
DIE_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


def free_port() -> int:
    """A port that is free, and whose cluster bus port is."""
    for port in _ports:
        with suppress(OSError):
            for each in (port, port + 10_000):
                socket.create_server(("127.0.0.1", each)).close()
            return port
    raise AssertionError("a cycle has ended")


async def until(condition: Callable[[], Awaitable[bool]], what: str, timeout: float = SETTLE_TIMEOUT) -> None:
    """Ask again and again until ``condition`` holds; a server that cannot be reached or says no means not yet."""
    with trio.move_on_after(timeout):
        while True:
            with suppress(OSError, trio.BrokenResourceError, ResponseError):
                if await condition():
                    return
            await trio.sleep(POLL_INTERVAL)
    raise TimeoutError(f"not within {timeout} seconds: {what}")


class ServerProcess(ABC):
    """One server, and what may befall it. Who subclasses it calls `_start` when all is set."""

    start_timeout = ANSWER_TIMEOUT
    """Seconds until it serves, at most."""
    environment: Mapping[str, str] | None = None
    """The process's; None is ours."""

    def __init__(self, directory: Path, port: int) -> None:
        self.port = port
        self._directory = directory
        self._stopped = False

    @property
    def alive(self) -> bool:
        """Whether the process is there; a stopped one is."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """What the server has written so far, over all restarts."""
        return (self._directory / "log").read_text(errors="replace")

    def kill(self) -> None:
        """End the process without a word to its clients; it is gone when this returns."""
        if self.alive:
            os.killpg(self._process.pid, signal.SIGKILL)  # with the children that write snapshots
        self._process.wait(ANSWER_TIMEOUT)
        self._stopped = False

    def stop(self) -> None:
        """Freeze the process: the kernel still takes connections and bytes for it, and nothing is answered."""
        if not self._stopped:
            self._process.send_signal(signal.SIGSTOP)
            os.waitpid(self._process.pid, os.WUNTRACED)  # it may run on a little on another core
            self._stopped = True

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._stopped = False

    async def restart(self) -> None:
        """Kill it if need be and start it anew on the same port."""
        self.kill()
        self._start()
        await self.wait_ready()

    @abstractmethod
    def command_line(self) -> Sequence[str]:
        """The program and its arguments."""

    @abstractmethod
    async def answers(self) -> bool:
        """Whether it serves by now; it may raise what `until` takes for not yet."""

    async def wait_ready(self) -> None:
        """A RuntimeError with its log when it does not come up."""

        async def answers_or_ended() -> bool:
            return not self.alive or await self.answers()

        try:
            await until(answers_or_ended, "an answer", self.start_timeout)
        except TimeoutError:
            self.kill()
        if not self.alive:
            raise RuntimeError(f"{Path(self.command_line()[0]).name} does not come up; its log:\n{self.log}")

    def _start(self) -> None:
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(  # not by Trio, which has a worker thread do it: see DIE_WITH_US
                [*DIE_WITH_US, *self.command_line()],
                cwd=self._directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is for the tests; see also kill()
            )
