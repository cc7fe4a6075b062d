"""How a node is started, and what counts as an error in its log."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from tests.backplane.processes import free_port
from tests.faults.node import Node, errors_of
from tests.faults.records import NOT_STARTED


def line(level: str, message: str, **fields: str) -> str:
    """As ``--log-format=json`` has it."""
    return json.dumps({"level": level, "logger": "trioroom.room", "message": message, **fields})


def test_errors_and_tracebacks_are_found_and_warnings_are_not() -> None:
    log = "\n".join((
        line("info", "trioroom serves"),
        line("warning", "the connection broke; trying again"),
        line("error", "on_leave failed", exception="Traceback (most recent call last):\n  ...\nValueError: no"),
        line("error", "in a group", exception="  | ExceptionGroup:  (1)\n    | ValueError: yes\n    +---------\n"),
        line("warning", "odd", exception="ValueError: caught"),
        "Fatal Python error: Segmentation fault",
    ))  # fmt: skip
    assert [*errors_of(log)] == [
        "trioroom.room: on_leave failed: ValueError: no",
        "trioroom.room: in a group: ValueError: yes",
        "trioroom.room: odd: ValueError: caught",
        "Fatal Python error: Segmentation fault",
    ]


# -- starting ------------------------------------------------------------------------------------------


def says(message: str, then: str) -> str:
    """A program."""
    return f"import time; print({line('error', message)!r}, flush=True); {then}"


NO_BROKER: Final = says("cannot use the Redis backplane: refused", "raise SystemExit(1)")
SERVING: Final = says("trioroom serves http://127.0.0.1/", "time.sleep(60)")


class Scripted(Node):
    """Each of its lives is another program."""

    def __init__(self, directory: Path, *programs: str) -> None:
        super().__init__(0, directory, free_port(), "")
        self._programs = programs

    def command_line(self) -> Sequence[str]:
        return [sys.executable, "-c", self._programs[len(self.lives)]]


async def test_node_that_finds_no_broker_is_started_again(tmp_path: Path) -> None:
    node = Scripted(tmp_path, NO_BROKER, SERVING)
    async with node.running():
        assert [(life.ended, life.errors) for life in node.lives] == [(NOT_STARTED, [])]


async def test_node_that_ends_at_once_for_another_reason_is_remembered(tmp_path: Path) -> None:
    node = Scripted(tmp_path, "raise SystemExit(3)", SERVING)
    async with node.running():
        assert [life.ended for life in node.lives] == ["exit 3 by itself"]


async def test_other_program_at_the_port_of_a_node_is_not_taken_for_it(tmp_path: Path) -> None:
    node = Scripted(tmp_path, NO_BROKER, SERVING)
    listeners = await trio.open_tcp_listeners(node.port, host="127.0.0.1")
    async with listeners[0], node.running():
        assert [life.ended for life in node.lives] == [NOT_STARTED]
