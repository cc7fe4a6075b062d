from __future__ import annotations

import os
import signal

import pytest

from trioroom.bench.machine import listeners
from trioroom.bench.options import Scenario
from trioroom.bench.server import ServerFailed, open_own_server, server_command, url_on


def test_server_is_gone_when_the_context_is() -> None:
    with open_own_server(1) as server:
        assert listeners(server.ports) == (server.pid,)
    assert not listeners(server.ports)


def test_server_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIOROOM_BACKPLANE", "no://such")
    with pytest.raises(ServerFailed, match="did not start: Error: --backplane"), open_own_server(1):
        pass


def test_server_is_configured_by_the_bench_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HOST", "192.0.2.1"), ("PORT", "x"), ("CONFIG", "nowhere.toml"), ("MAX_CONNECTIONS", "1")):
        monkeypatch.setenv(f"TRIOROOM_{name}", value)
    with open_own_server(1) as server:
        assert listeners(server.ports) == (server.pid,)


def test_server_that_ends_by_itself_is_told() -> None:
    def end() -> None:
        with open_own_server(1) as server:
            os.kill(server.pid, signal.SIGKILL)
            descriptor = os.pidfd_open(server.pid)
            os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOWAIT)
            os.close(descriptor)

    with pytest.raises(ServerFailed, match="ended by itself"):
        end()


def test_workers_are_linked() -> None:
    assert "--backplane" not in server_command(1, ())
    assert server_command(3, ())[-5:] == ["--workers", "3", "--port-per-worker", "--backplane", "embedded"]


@pytest.mark.redis
def test_each_worker_has_its_port() -> None:
    with open_own_server(2, ["max_connections=7"]) as server:
        assert len(server.ports) == len(listeners(server.ports)) == 2  # the parent only keeps the ports


def test_each_scenario_has_its_room() -> None:
    assert url_on(80, Scenario.ECHO) == "ws://127.0.0.1:80/echo"
    assert url_on(80, Scenario.ROOMS) == "ws://127.0.0.1:80/chat/{n}"
    assert url_on(80, Scenario.IDLE) == "ws://127.0.0.1:80/all"
