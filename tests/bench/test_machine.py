from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from trioroom.bench import machine
from trioroom.bench.machine import cpu_seconds, kernel_bytes, listeners, look_at_machine, resident_bytes

linux = pytest.mark.skipif(sys.platform != "linux", reason="tells what proc(5) has")


@linux
def test_machine_is_what_the_system_says() -> None:
    found = look_at_machine()
    assert found.open_files > 0
    assert 1_000 < found.ports < 65_536
    assert found.memory is not None
    assert found.memory > 1 << 20
    assert found.cpus >= 1
    assert "Python" in found.description


@linux
def test_processes_are_measured_until_they_have_ended() -> None:
    assert resident_bytes() == pytest.approx(resident_bytes(os.getpid()), rel=0.1)
    assert cpu_seconds(os.getpid()) > 0
    assert kernel_bytes() > 0
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert resident_bytes(ended.pid) == 0
    assert cpu_seconds(ended.pid) == 0


@linux
def test_listener_is_found_by_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert os.getpid() in listeners({server.getsockname()[1]})
        port = server.getsockname()[1]
    assert os.getpid() not in listeners({port})


def test_system_that_tells_nothing_is_borne(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_read", lambda path: "")
    assert look_at_machine().memory is None
    assert look_at_machine().ports == 16_384
    assert resident_bytes() > 0
    assert resident_bytes(os.getpid()) == 0
    assert kernel_bytes() == 0
    assert listeners({80}) == ()
