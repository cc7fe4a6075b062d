"""A server of our own to be measured, when there is no other: a process, as a user would start it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import IO

import attrs

from trioroom.bench.options import Scenario

STOP_TIMEOUT = 15.0
"""Seconds the server may take to end: its drain, and a little."""
_TOLD_CHARACTERS = 2_000
_ROOMS: Mapping[Scenario, str] = MappingProxyType({
    Scenario.ECHO: "echo",
    Scenario.ROOMS: "chat/{n}",
    Scenario.RECOVERY: "kept",
})  # fmt: skip
_SETTINGS = ("max_message_rate=inf", "max_members_per_room=10000000")  # one member publishes for a whole room


class ServerFailed(Exception):
    """It did not start, or has ended; says why."""


def server_command(workers: int, settings: Sequence[str]) -> list[str]:
    """How to start it, on free ports. Several workers have one each: where a member connects is then ours to say."""
    command = [sys.executable, "-m", "trioroom", "serve", "trioroom.bench.app:app", "--port", "0"]
    command += ["--log-level", "error", *(f"--set={setting}" for setting in (*_SETTINGS, *settings))]
    if workers == 1:
        return command
    return [*command, "--workers", str(workers), "--port-per-worker", "--backplane", "embedded"]


def server_environment() -> dict[str, str]:
    """Ours, without what would configure another server: of that only the backplane is for one that is measured."""
    kept = ("TRIOROOM_BACKPLANE", "TRIOROOM_BACKPLANE_FILE")
    return {name: value for name, value in os.environ.items() if name in kept or not name.startswith("TRIOROOM_")}


def url_on(port: int, scenario: Scenario) -> str:
    """The room that a scenario wants."""
    return f"ws://127.0.0.1:{port}/{_ROOMS.get(scenario, 'all')}"


@attrs.frozen
class Started:
    """A server that runs."""

    ports: tuple[int, ...]
    """Of each worker."""
    pid: int


@contextmanager
def open_own_server(workers: int, settings: Sequence[str] = ()) -> Iterator[Started]:
    """A server that runs while the context is open.

    Args:
        settings: of the server, each ``NAME=VALUE``.
    Raises:
        ServerFailed: it has ended by itself.
    """
    with tempfile.TemporaryFile() as complaints:  # a pipe that nobody reads would stop it when it is full
        process = subprocess.Popen(
            server_command(workers, settings),
            env=server_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            start_new_session=True,  # Ctrl-C is ours alone; we end it when the figures are in
        )
        try:
            ports = tuple(_wait_port(process, complaints) for _ in range(workers))
            yield Started(ports, process.pid)
            if process.poll() is not None:
                raise ServerFailed(f"ended by itself: {_told(complaints)}")
        finally:
            _stop(process)


def _wait_port(process: subprocess.Popen[str], complaints: IO[bytes]) -> int:
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
    if found is None:
        process.wait(STOP_TIMEOUT)
        raise ServerFailed(f"did not start: {line}{_told(complaints)}")
    return int(found[1])


def _told(complaints: IO[bytes]) -> str:
    """What it has said on standard error, or the end of that."""
    complaints.seek(0)
    return complaints.read().decode(errors="replace").strip()[-_TOLD_CHARACTERS:]


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
