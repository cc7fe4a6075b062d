"""What a worker is started with: forks of a process that has loaded the application, or new interpreters.

Each `open_starter` loads the application anew, so its workers run the code and have the configuration of that moment.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from trioroom.cli.environment import FILE_SUFFIX, variable_of
from trioroom.cli.forkserver import ForkServer, NoForks, open_fork_server
from trioroom.cli.keeper import StartWorker
from trioroom.cli.processes import Process

log = logging.getLogger("trioroom.workers")


@attrs.frozen
class Commands:
    """How to start processes of ours, from the arguments of this one.

    They serve where this process has reserved ports, and on the backplane that links them to those of before, whatever
    the file of the configuration says by then.
    """

    arguments: Sequence[str]
    """Less its name; the workers get them too."""
    host: str
    backplane: str = attrs.field(repr=False)
    """The URL of the backplane, as it was asked for."""
    broker: str | None
    """The URL of the one that runs here, if that was asked for."""
    directory: str = attrs.field(factory=lambda: _current_directory())

    def worker(self, port: int) -> list[str]:
        """A worker that is a new interpreter."""
        return self._command(["--port", str(port)])

    def fork_server(self) -> list[str]:
        """The fork server, whose workers are told their ports when they are needed."""
        return self._command(["--fork-server"])

    def _command(self, more: Sequence[str]) -> list[str]:
        """Ours, with options at the end that override those before."""
        arguments = self.arguments
        end = arguments.index("--") if "--" in arguments else len(arguments)
        overriding = ["--worker", "--workers", "1", "--host", self.host, *more]
        overriding += ["--backplane", self.broker] if self.broker is not None else []
        return [sys.executable, "-m", "trioroom", *arguments[:end], *overriding, *arguments[end:]]

    def environment(self) -> dict[str, str]:
        """Ours, with the backplane: its URL may hold a password, which is not to be seen in the list of processes."""
        variable = variable_of("backplane")
        return {**os.environ, variable: self.backplane, variable + FILE_SUFFIX: ""}


def _current_directory() -> str:
    """By the name the shell knows it by: a link, such as one to the latest release, may lead elsewhere next time."""
    real, named = os.getcwd(), os.environ.get("PWD", "")
    try:
        return named if os.path.samefile(named, real) else real
    except OSError:
        return real


class Starter:
    """Starts workers that have loaded the same; made by `open_starter`."""

    def __init__(self, commands: Commands, fork_server: ForkServer | None) -> None:
        self._commands = commands
        self._fork_server = fork_server

    def on_port(self, port: int) -> StartWorker:
        """What starts a worker there."""
        return partial(self._start, port)

    async def _start(self, port: int, lifeline: socket.socket) -> Process:
        if self._fork_server is not None:
            try:
                return await self._fork_server.fork(port, lifeline)
            except NoForks as exc:
                _warn_of_interpreters(str(exc))
                self._fork_server = None
        commands = self._commands
        return await start_interpreter(commands.worker(port), commands.directory, lifeline, commands.environment())


@asynccontextmanager
async def open_starter(commands: Commands, against_forks: str | None) -> AsyncIterator[Starter]:
    """A starter while the context is open; its workers should end before it.

    Args:
        against_forks: why workers have to be new interpreters, whatever the application is like.
    """
    if against_forks is not None:
        _warn_of_interpreters(against_forks)
        yield Starter(commands, None)
        return
    opened = open_fork_server(commands.fork_server(), commands.directory, commands.environment())
    async with opened as fork_server:
        yield Starter(commands, fork_server)


def _warn_of_interpreters(reason: str) -> None:
    log.warning("workers do not share memory, as %s", reason)


async def start_interpreter(
    command: Sequence[str],
    directory: str | None,
    lifeline: socket.socket,
    environment: Mapping[str, str] | None = None,
) -> trio.Process:
    """A worker that loads everything by itself."""
    return await trio.lowlevel.open_process(
        command, cwd=directory, env=environment, stdin=lifeline, start_new_session=True
    )
