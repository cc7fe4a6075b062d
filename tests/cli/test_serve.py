"""The commands as a user runs them: in processes of their own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result
from trio_websocket import open_websocket_url

from trioroom import __version__
from trioroom.cli import main

CHAT = """
import trioroom

class Chat(trioroom.Room):
    pass

app = trioroom.App()
app.route("chat/{name}", Chat)
other = 5
"""


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), input=stdin)


@contextmanager
def started(*arguments: str, directory: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A ``trioroom`` process that listens, and its port."""
    command = [sys.executable, "-m", "trioroom", *arguments, "--port", "0"]
    process = subprocess.Popen(
        command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ}
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"https?://127\.0\.0\.1:(\d+)/", line)
        assert found is not None, line + process.stdout.read()
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    (tmp_path / "chat_for_cli.py").write_text(CHAT)
    (tmp_path / "broken_for_cli.py").write_text("import no_such_module_at_all\n")
    return tmp_path


def test_version_and_help_are_printed() -> None:
    assert __version__ in run("--version").output
    for command in ("serve", "demo", "publish", "join"):
        assert "Usage:" in run(command, "--help").output


def test_help_has_a_whole_sentence_for_each_command() -> None:
    commands = run("--help").output.partition("Commands:\n")[2].splitlines()
    assert len(commands) == 6
    assert [line for line in commands if not re.fullmatch(r"  \w+ +[A-Z].*[^.]\.", line)] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_server_cleanly(number: signal.Signals) -> None:
    with started("demo") as (process, port):
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read()
        assert b"<html" in page
        process.send_signal(number)
        output, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "Traceback" not in output


async def test_second_signal_stops_at_once() -> None:
    with started("demo", "--set", "drain_timeout=60", "--set", "close_timeout=60") as (process, port):
        peer = socket.create_connection(("127.0.0.1", port))  # answers no close frame: a drain would wait
        peer.sendall(
            b"GET /chat/x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert b"101 " in peer.recv(100)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert "draining 1 connections" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=10)
        peer.close()
    assert process.returncode == 0
    assert "Traceback" not in output


async def test_app_of_the_current_directory_is_served(chat: Path) -> None:
    with started("serve", "chat_for_cli:app", directory=chat) as (_, port):
        url = f"ws://127.0.0.1:{port}/chat/a"
        async with open_websocket_url(url) as one, open_websocket_url(url) as two:
            await one.send_message("hello")
            assert await two.get_message() == "hello"


def test_busy_port_is_told_in_one_line() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        result = run("demo", "--port", str(port))
    assert result.exit_code == 1
    assert result.output == f"Error: port {port} of 127.0.0.1 is in use; choose another with --port\n"


def test_foreign_address_is_told_in_one_line() -> None:
    result = run("demo", "--host", "192.0.2.1", "--port", "0")
    assert result.exit_code == 1
    assert result.output.startswith("Error: cannot listen on port 0 of 192.0.2.1: ")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("no_such_module_here:app", "no module 'no_such_module_here' here"),
        ("chat_for_cli.py:app", "a file is no module; write chat_for_cli:app"),
        ("chat_for_cli.py", "a file is no module; write chat_for_cli:app"),
        ("deeper/chat_for_cli.py:app", "a file is no module; go to deeper, and write chat_for_cli:app"),
        ("chat_for_cli:missing", "no trioroom.App called 'missing'"),
        ("chat_for_cli:other", "no trioroom.App called 'other'"),
    ],
)
def test_wrong_app_is_a_usage_error(name: str, complaint: str, chat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chat)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    result = run("serve", name)
    assert result.exit_code == 2
    assert complaint in result.output


def test_failing_import_in_the_app_keeps_its_traceback(chat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chat)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    result = run("serve", "broken_for_cli:app")
    assert isinstance(result.exception, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("foo=1", "no setting is called 'foo'"),
        ("ping_interval=-1", "must be > 0"),
        ("ping_interval=often", "could not convert"),
        ("ping_timeout=60", "ping_timeout"),
        ("compression=maybe", "neither true nor false"),
    ],
)
def test_wrong_setting_is_a_usage_error(setting: str, complaint: str) -> None:
    result = run("demo", "--set", setting)
    assert result.exit_code == 2
    assert complaint in result.output


def test_key_without_certificate_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    assert "--tls-key needs --tls-cert" in run("demo", "--tls-key", str(tmp_path / "key.pem")).output
    assert "give certificate and key as PEM" in run("demo", "--tls-cert", str(tmp_path / "key.pem")).output


async def test_publish_reaches_the_room(chat: Path) -> None:
    with started("serve", "chat_for_cli:app", directory=chat) as (_, port):
        url = f"ws://127.0.0.1:{port}/"
        async with open_websocket_url(url + "chat/a") as member:
            for arguments, stdin, expected in (
                (("hello",), None, "hello"),
                (('{"x": 1}', "--json"), None, '{"x":1}'),
                (("-",), "from a pipe", "from a pipe"),
                (("hello", "--token", "secret"), None, "hello"),
            ):
                command = ["publish", "--url", url, "chat/a", *arguments]
                result = await trio.to_thread.run_sync(partial(run, *command, stdin=stdin))
                assert result.output == "sent to chat/a\n"
                assert await member.get_message() == expected
        refused = await trio.to_thread.run_sync(lambda: run("publish", "--url", url, "nowhere", "x"))
    assert refused.exit_code == 1
    assert "the server refused: no room is called 'nowhere'" in refused.output


def test_publish_without_a_server_says_so() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = run("publish", "--url", f"ws://127.0.0.1:{port}/", "chat/a", "x")
    assert result.exit_code == 1
    assert "is the server running there?" in result.output
    assert "refused" in result.output
    assert "DATA is not JSON" in run("publish", "chat/a", "{", "--json").output
