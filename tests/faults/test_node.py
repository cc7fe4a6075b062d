"""What counts as an error in a node's log."""

from __future__ import annotations

import json

from tests.faults.node import errors_of


def line(level: str, message: str, **fields: str) -> str:
    """As ``--log-format=json`` has it."""
    return json.dumps({"level": level, "logger": "trioroom.room", "message": message, **fields})


def test_errors_and_tracebacks_are_found_and_warnings_are_not() -> None:
    log = "\n".join((
        line("info", "trioroom serves"),
        line("warning", "the connection broke; trying again"),
        line("error", "on_leave failed", exception="Traceback (most recent call last):\n  ...\nValueError: no"),
        line("warning", "odd", exception="ValueError: caught"),
        "Fatal Python error: Segmentation fault",
    ))  # fmt: skip
    assert [*errors_of(log)] == [
        "trioroom.room: on_leave failed: ValueError: no",
        "trioroom.room: odd: ValueError: caught",
        "Fatal Python error: Segmentation fault",
    ]
