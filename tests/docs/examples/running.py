"""The programs of the documentation as processes, and talking to them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio
from trio_websocket import WebSocketConnection

ROOT = Path(__file__).parent.parent.parent.parent
EXAMPLES = ROOT / "docs" / "examples"
DEADLINE = 30  # seconds for one example


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process in the folder of the examples, where they find each other as a user's files do."""
    command = [sys.executable, "-u", *arguments]
    with subprocess.Popen(
        command, cwd=EXAMPLES, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def url_of(process: subprocess.Popen[str]) -> str:
    """The address that a server prints first."""
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"wss?://\S+", line)
    assert found is not None, line + process.stdout.read()
    return found[0]


def stop(process: subprocess.Popen[str]) -> None:
    """Ctrl-C, and again, as people do: Python loses one that comes while a weak reference calls back.

    That is where it often comes here, with connections that have just ended. Commands take signals by other ways.
    """
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=5)
            return
    raise AssertionError("it goes on")


async def text_from(connection: WebSocketConnection) -> str:
    message = await connection.get_message()
    assert isinstance(message, str)
    return message


async def say_until_heard(speaker: WebSocketConnection, listener: WebSocketConnection, text: str) -> None:
    """Once both are in the room, of which nothing tells them."""
    while True:
        await speaker.send_message(text)
        with trio.move_on_after(0.2):
            while not (await text_from(listener)).endswith(f": {text}"):
                pass
            return
