"""What systemd hears of us, over a real socket."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.cli.conftest import DEADLINE, open_command
from trioroom.cli.notify import READY, notify, reloading


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Systemd's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


async def hear(sock: socket.socket) -> str:
    with trio.fail_after(DEADLINE):
        await trio.lowlevel.wait_readable(sock)
    return sock.recv(4_096).decode()


async def test_state_is_one_datagram(heard: socket.socket) -> None:
    notify(READY)
    assert await hear(heard) == "READY=1"


async def test_abstract_socket_is_known_by_its_at_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"trioroom-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify(READY)
        assert await hear(sock) == "READY=1"


@pytest.mark.parametrize("address", ["", "nonsense", "/nowhere/notify"])
def test_nobody_to_tell_is_no_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify(READY)


def test_reloading_has_the_time_on_the_clock_that_systemd_reads() -> None:
    first, second = reloading().split("\n")
    assert first == "RELOADING=1"
    assert 0 <= time.clock_gettime(time.CLOCK_MONOTONIC) - int(second.removeprefix("MONOTONIC_USEC=")) / 1e6 < 1


async def test_server_says_when_it_serves_and_when_it_stops(heard: socket.socket) -> None:
    async with open_command("demo", "--port", "0") as command:
        assert await hear(heard) == "READY=1"
        command.process.send_signal(signal.SIGTERM)
        assert await hear(heard) == "STOPPING=1"
        assert await command.wait_ended() == 0


@pytest.mark.redis
async def test_parent_of_workers_speaks_for_them(heard: socket.socket) -> None:
    workers = ("--workers", "2", "--backplane", "embedded")
    async with open_command("demo", "--port", "0", *workers) as command:
        assert await hear(heard) == "READY=1"
        command.process.send_signal(signal.SIGHUP)
        assert (await hear(heard)).startswith("RELOADING=1\n")
        assert await hear(heard) == "READY=1"
        await command.wait_said("restarted 2 workers")  # by another way, and so maybe later
        command.process.send_signal(signal.SIGTERM)
        assert await hear(heard) == "STOPPING=1"
        assert await command.wait_ended() == 0
        with pytest.raises(BlockingIOError):
            heard.recv(1)
