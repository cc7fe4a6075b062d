"""Logs as JSON: whatever a process tells is one object a line."""

from __future__ import annotations

import io
import json
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cli.conftest import DEADLINE, STARTS_A_THREAD, open_command, open_remote_peer
from trioroom import CloseCode
from trioroom.cli.logs import JsonHandler
from trioroom.testing import Peer

ROOMS = """
import logging, sys, threading, time, warnings
import trioroom

class Rooms(trioroom.Room):
    async def on_message(self, member, message):
        match message.data:
            case "warn":
                warnings.warn("this is\\nold", stacklevel=1)
            case "group":
                raise ExceptionGroup("several", [ValueError("one\\nline"), KeyError("two")])
            case "thread":
                threading.Thread(target=lambda: 1 / 0, name="worker").start()
            case "badly":
                logging.getLogger("rooms").warning("%s and %s", "one")
            case "text":
                logging.getLogger("rooms").warning("said: %s", "a\\nb\\x1b[31m\\u2028", extra={"level": 3})
            case "end":
                sys.excepthook(*_caught())
        member.send("done")

def _caught():
    try:
        raise RuntimeError("the end")
    except RuntimeError:
        return sys.exc_info()

app = trioroom.App()
app.route("{name}", Rooms)
"""


@pytest.fixture
def written() -> io.StringIO:
    """What `logger` writes."""
    return io.StringIO()


@pytest.fixture
def logger(written: io.StringIO) -> logging.Logger:
    logger = logging.Logger("test.logs")  # without a parent, whose handlers would mind what we give it
    logger.addHandler(JsonHandler(written))
    return logger


def records_of(text: str) -> list[dict[str, object]]:
    """Each line is one, and however one splits lines."""
    assert text.splitlines() == text.removesuffix("\n").split("\n")
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    return [json.loads(line) for line in text.splitlines()]


# -- the lines -------------------------------------------------------------------------------------


def test_record_has_what_every_record_has_and_the_fields_of_its_call(
    logger: logging.Logger, written: io.StringIO
) -> None:
    logger.info("%s left", "ann", extra={"room": "chat/a", "code": CloseCode.KICKED, "user": None})
    (record,) = records_of(written.getvalue())
    told = str(record.pop("time"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told)
    assert abs((datetime.now(UTC) - datetime.fromisoformat(told)).total_seconds()) < 60
    assert record == {
        "level": "info",
        "logger": "test.logs",
        "message": "ann left",
        "process": os.getpid(),
        "room": "chat/a",
        "code": CloseCode.KICKED.value,
    }


HOSTILE = 'x\r\n{"level":"error"}\x00\x1b[2J\x7f\x85\x9b\u2028\u2029\ud800 ü 🎉'


def test_nothing_that_a_peer_writes_ends_a_line_or_reaches_the_terminal(
    logger: logging.Logger, written: io.StringIO
) -> None:
    logger.warning("room %s", HOSTILE, extra={"room": HOSTILE, "reason": {HOSTILE: [HOSTILE]}})
    (record,) = records_of(written.getvalue())
    assert record["message"] == f"room {HOSTILE}"
    assert record["room"] == HOSTILE
    assert record["reason"] == {HOSTILE: [HOSTILE]}


def test_exceptions_and_groups_are_text_with_traceback(logger: logging.Logger, written: io.StringIO) -> None:
    try:
        try:
            raise ValueError(HOSTILE)
        except ValueError as exc:
            raise ExceptionGroup("several", [exc, KeyError("two")]) from exc
    except ExceptionGroup:
        logger.exception("failed", stack_info=True)
    (record,) = records_of(written.getvalue())
    told = str(record["exception"])
    assert told.count("Traceback (most recent call last)") >= 2
    for part in ("ExceptionGroup: several (2 sub-exceptions)", "ValueError: x", "KeyError: 'two'", "test_logs.py"):
        assert part in told
    assert "logger.exception(" in str(record["stack"])


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("inf"), "inf"),
        (1.5, 1.5),
        (b"caf\xe9", "caf\\xe9"),
        (Path("a/b"), "a/b"),
        ({1: (2, {3})}, {"1": [2, [3]]}),
        (True, True),
    ],
)
def test_value_that_json_lacks_is_text(
    value: object, told: object, logger: logging.Logger, written: io.StringIO
) -> None:
    logger.info("x", extra={"value": value})
    assert records_of(written.getvalue())[0]["value"] == told


def test_field_with_a_name_of_ours_is_renamed(logger: logging.Logger, written: io.StringIO) -> None:
    logger.info("x", extra={"level": 3, "time": "noon"})
    (record,) = records_of(written.getvalue())
    assert (record["level"], record["level_"], record["time_"]) == ("info", 3, "noon")


def test_call_that_cannot_be_logged_is_a_record(logger: logging.Logger, written: io.StringIO) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    logger.info("%d\n%d", 1)
    logger.info("x", extra={"value": Unprintable()})
    first, second = records_of(written.getvalue())
    assert first["level"] == second["level"] == "error"
    assert "test_logs.py" in str(first["message"])
    assert "not enough arguments" in str(first["exception"])
    assert "no words" in str(second["exception"])


def test_stream_that_takes_nothing_disturbs_nobody(logger: logging.Logger, written: io.StringIO) -> None:
    written.close()
    logger.info("x")


def write_many(descriptor: int, writer: int) -> None:
    with open(descriptor, "w", buffering=1) as stream:  # as standard error is
        handler = JsonHandler(stream)
        for number in range(200):
            record = logging.LogRecord("many", logging.INFO, "", 0, "x" * (number * 15), (), None)
            record.writer, record.number = writer, number
            handler.handle(record)


def test_lines_of_several_processes_in_one_pipe_stay_whole() -> None:
    ours, theirs = os.pipe()
    fork = multiprocessing.get_context("fork")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # threads, of which none holds a lock
        processes = [fork.Process(target=write_many, args=(theirs, writer)) for writer in range(4)]
        for process in processes:
            process.start()
    os.close(theirs)
    with open(ours) as read:
        told = records_of(read.read())
    for process in processes:
        process.join()
    for writer in range(4):
        assert [record["number"] for record in told if record["writer"] == writer] == list(range(200))


# -- the commands ----------------------------------------------------------------------------------


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    (tmp_path / "rooms.py").write_text(ROOMS)
    (tmp_path / "broken.py").write_text("import warnings\nwarnings.warn('first')\nraise ValueError('no app\\ntoday')\n")
    return tmp_path


def find(records: list[dict[str, object]], **fields: object) -> dict[str, object]:
    """The one with these fields."""
    (found,) = [record for record in records if fields.items() <= record.items()]
    return found


async def ask(peer: Peer, question: str) -> None:
    await peer.send(question)
    assert await peer.receive() == "done"


async def test_everything_that_a_server_tells_is_json(rooms: Path) -> None:
    command_line = ("serve", "rooms:app", "--port", "0", "--log-format", "json", "--log-level", "debug")
    async with open_command(*command_line, directory=rooms) as command:
        port = int((await command.wait_said(r'"url":"http://127\.0\.0\.1:(\d+)/"'))[1])
        async with open_remote_peer(port, "/a?token=s3cret-1") as peer:
            for question in ("warn", "thread", "badly", "text", "end"):
                await ask(peer, question)
            await command.wait_said("the end")
            await peer.send("group")
            await command.wait_said("closed with 1011")
        command.process.send_signal(signal.SIGTERM)
        assert await command.wait_ended() == 0
    records = records_of(command.output)
    opened = find(records, address="127.0.0.1", logger="trioroom.handshake")
    assert opened["message"] == f"{opened['connection']}: opened from 127.0.0.1"
    assert {record["process"] for record in records} == {command.process.pid}
    assert find(records, url=f"http://127.0.0.1:{port}/")["logger"] == "trioroom.server"
    assert "UserWarning: this is\nold" in str(find(records, logger="py.warnings")["message"])
    assert "ZeroDivisionError" in str(find(records, message="uncaught ZeroDivisionError in thread worker")["exception"])
    assert find(records, logger="rooms", level="error")["exception"]
    assert find(records, logger="rooms", level="warning")["message"] == "said: a\nb\x1b[31m\u2028"
    failed = find(records, hook="on_message", room="a", level="error")
    assert "ValueError: one\n" in str(failed["exception"])
    assert find(records, code=1011)["connection"] == failed["connection"]
    assert "RuntimeError: the end" in str(find(records, level="critical")["exception"])
    assert "s3cret" not in command.output


@pytest.mark.redis
@pytest.mark.parametrize("way", ["forks", "interpreters"])
async def test_workers_tell_json_too(way: str, rooms: Path) -> None:
    if way == "interpreters":  # an application that starts a thread is not forked
        (rooms / "rooms.py").write_text(STARTS_A_THREAD + ROOMS)
    options = ("--workers", "2", "--backplane", "embedded", "--port", "0", "--log-format", "json")
    async with open_command("serve", "rooms:app", *options, directory=rooms) as command:
        port = int((await command.wait_said(r'"url":"http://127\.0\.0\.1:(\d+)/"'))[1])
        async with open_remote_peer(port, "/a") as peer:
            await peer.send("group")
            await command.wait_said("on_message failed")
        victim = int(str(find(records_of(command.output), hook="on_message")["process"]))
        os.kill(victim, signal.SIGKILL)
        await command.wait_said("worker . serves")
        command.process.send_signal(signal.SIGTERM)
        assert await command.wait_ended() == 0
    records = records_of(command.output)
    assert victim != command.process.pid
    ended = find(records, pid=victim, level="error")
    assert ended["process"] == command.process.pid
    assert ended["exit_code"] == -signal.SIGKILL
    assert ended["worker"] in (1, 2)


def run(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trioroom", *arguments, "--log-format", "json"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=DEADLINE)


def test_failing_import_of_the_application_is_a_record(rooms: Path) -> None:
    ended = run("serve", "broken:app", directory=rooms)
    warning, failure = records_of(ended.stderr)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "UserWarning: first" in str(warning["message"])
    assert failure["level"] == "critical"
    assert "ValueError: no app\ntoday" in str(failure["exception"])


def test_server_that_cannot_start_says_so_in_a_record(rooms: Path) -> None:
    ended = run("serve", "rooms:app", "--backplane", "pulsar://127.0.0.1", directory=rooms)
    (failure,) = records_of(ended.stderr)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert failure["level"] == "error"
    assert str(failure["message"]).startswith("--backplane: no backplane is called 'pulsar'")


def test_text_is_as_ever(rooms: Path) -> None:
    command = [sys.executable, "-m", "trioroom", "serve", "rooms:app", "--backplane", "pulsar://127.0.0.1"]
    ended = subprocess.run(command, cwd=rooms, capture_output=True, text=True, timeout=DEADLINE)
    assert ended.stderr.startswith("Error: --backplane: no backplane is called 'pulsar'")


async def test_text_quotes_what_a_peer_writes(rooms: Path) -> None:
    async with open_command("serve", "rooms:app", "--port", "0", "--log-level", "debug", directory=rooms) as command:
        port = await command.wait_port()
        async with open_remote_peer(port, "/a") as peer:
            await peer.send_frame(0x8, (1000).to_bytes(2, "big") + b"bye\n2026-01-01 ERROR root: forged")
            await command.wait_said(r"closed with 1000 'bye\\n2026")
        assert "\n2026-01-01 ERROR" not in command.output
