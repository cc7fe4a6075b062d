"""A contender's server while it is measured, on a core of its own."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import attrs

from tests.benchmarks.peers.contenders import Ready
from tests.benchmarks.processes import LOAD_CORE, SERVER_CORE, busy_seconds, cpu_seconds

START_TIMEOUT = 15.0
STOP_TIMEOUT = 5.0
_TOLD_CHARACTERS = 1_000


class Failed(Exception):
    """A server or the load on it; says what went wrong."""


@attrs.frozen
class Started:
    """A server that runs."""

    port: int
    pid: int


def pinned() -> bool:
    """Server and load can have a core each."""
    if sys.platform != "linux" or shutil.which("taskset") is None:
        return False
    return {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0)


def on_core(core: int, command: list[str]) -> list[str]:
    """The command, held to one core where that is possible."""
    return ["taskset", "-c", str(core), *command] if pinned() else command


@contextmanager
def serving(ready: Ready) -> Iterator[Started]:
    """A server that runs while the context is open.

    Raises:
        Failed: it did not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    with tempfile.TemporaryFile() as complaints:  # a pipe that nobody reads would stop it when it is full
        server = subprocess.Popen(
            on_core(SERVER_CORE, ready.command_on(port)),
            env={**os.environ, **ready.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
        )
        try:
            _wait_started(ready, server, complaints)
            yield Started(port, server.pid)  # taskset becomes the server
        finally:
            _stop(server)


def _wait_started(ready: Ready, server: subprocess.Popen[bytes], complaints: IO[bytes]) -> None:
    """Until it says its first line, which all of them say when they listen."""
    assert server.stdout is not None
    readable, _, _ = select.select([server.stdout], [], [], START_TIMEOUT)
    if readable and server.stdout.readline():
        return
    server.kill()
    server.wait()
    complaints.seek(0)
    said = complaints.read().decode(errors="replace").strip()[-_TOLD_CHARACTERS:]
    raise Failed(f"the server of {ready.contender.name} did not start within {START_TIMEOUT:g} s: {said}")


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Nobody is connected any more, so that there is nothing to be polite about."""
    server.kill()
    server.communicate(timeout=STOP_TIMEOUT)


class SharedCore:
    """What else goes on, from now on, where a server should be alone: figures from a busy machine are worth little."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = self._read()

    def others(self) -> float:
        """The share of the core that others than the server had; 0 where it is not pinned to one."""
        now, busy, server = (after - before for after, before in zip(self._read(), self._before, strict=True))
        return max(0.0, busy - server) / now

    def _read(self) -> tuple[float, float, float]:
        if not pinned():
            return time.monotonic(), 0.0, 0.0
        return time.monotonic(), busy_seconds(SERVER_CORE), cpu_seconds(self._pid)
