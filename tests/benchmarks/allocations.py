"""A server in a process of its own that says where its memory went: allocations by part, objects by type, RSS.

Allocations are what Python asked for, with the heads of objects that the garbage collector tracks, as tracemalloc
sees them; RSS has what the allocators round up and leave free besides. Tracing slows the server down and grows it, so
that RSS is told by one that does not trace.
"""

from __future__ import annotations

import ast
import gc
import linecache
import math
import os
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing.connection import Connection

import attrs
import trio

import trioroom
from tests.benchmarks.processes import beside, resident_bytes
from tests.benchmarks.rooms import app

FRAMES = 8  # of a traceback: from CancelScope.__enter__ out of trio to who opened the nursery
OWN = ("/linecache.py", "/ast.py", "/tracemalloc.py")  # what looking takes itself
TYPES = 25  # that are shown, the most frequent ones
FRAMES_PART = "coroutine frames"
PARTS = {
    "trio/_util.py": {"coroutine_or_error": FRAMES_PART},
    "trio/_core/_run.py": {
        "open_nursery": "nursery",
        "NurseryManager": "nursery",
        "CancelScope": "nursery",
        "CancelStatus": "nursery",
        "Nursery": "nursery",
        "": "task",
    },
    "trio/_core/_parking_lot.py": {"": "parking lots"},
    "trio/_core/_traps.py": {"": "task"},
    "trio/_sync.py": {"": "events and locks"},
    "trio/_socket.py": {"": "socket"},
    "/socket.py": {"": "socket"},
    "trioroom/_net/listener.py": {"": "socket"},
    "trioroom/_net/transport.py": {"": "socket"},
    "trioroom/_net/readiness.py": {"": "socket"},
    "trioroom/_net/entrance.py": {"": "hub"},
    "trioroom/_core/admission.py": {"": "hub"},
    "trioroom/_net/heartbeat.py": {"": "hub"},
    "trioroom/_net/hub.py": {"": "hub"},
    "trioroom/_net/handshake.py": {"": "session"},
    "trioroom/_net/connection.py": {"": "connection"},
    "trioroom/_wire/frames.py": {"": "connection"},
    "trioroom/_wire/http.py": {"": "request"},
    "trioroom/_net/session.py": {"": "session"},
    "trioroom/member.py": {"": "member"},
    "trioroom/room.py": {"": "room"},
    "trioroom/_core/routes.py": {"": "room"},
    "trioroom/_net/active_room.py": {"": "room"},
    "trioroom/_net/fanout.py": {"FanOut.finish_join": "member", "FanOut.begin_join": "member", "": "fan-out"},
    "trioroom/_core/overflow.py": {"": "fan-out"},
    "trioroom/_net/paced_publisher.py": {"": "publisher"},
    "trioroom/backplane/room_channel.py": {"": "channel"},
    "trioroom/backplane/memory_rooms.py": {"": "subscription"},
    "trioroom/backplane/memory.py": {"": "subscription"},
}
"""Whose an allocation is, by the innermost frame that is listed here: file, and beginning of the function's name."""


@attrs.frozen
class Look:
    """A server at a moment."""

    pid: int
    resident: int
    parts: Counter[str]
    """Bytes; empty unless it traces."""
    lines: Counter[str]
    """The same by line."""
    objects: Counter[str]
    """By type, of those that the collector tracks."""


@contextmanager
def observed(*, trace: bool) -> Iterator[tuple[int, Connection]]:
    """The port of a server of ``rooms.py`` in a process of its own, and a pipe for `look`."""
    with beside(_serve, trace) as pipe:
        yield pipe.recv(), pipe


def look(pipe: Connection) -> Look:
    """See how it is, after a collection."""
    pipe.send(None)
    found: Look = pipe.recv()
    return found


def grown(before: Look, after: Look) -> Look:
    """What there is more of."""
    parts, lines, objects = Counter(after.parts), Counter(after.lines), Counter(after.objects)
    parts.subtract(before.parts)
    lines.subtract(before.lines)
    objects.subtract(before.objects)
    return Look(after.pid, after.resident - before.resident, parts, lines, objects)


def show(growth: Look, resident: int, count: int, lines: int) -> None:
    """Print a growth for each of ``count``; what is resident comes from a server that did not trace."""
    print(f"{'RSS':24} {resident / count:10,.0f}\n{'traced':24} {growth.parts.total() / count:10,.0f}")
    for counter, limit in ((growth.parts, None), (growth.objects, TYPES), (growth.lines, lines)):
        print()
        for name, number in counter.most_common(limit):
            if abs(number) > count / 10:
                print(f"    {name:80.80} {number / count:10,.1f}")


def _serve(pipe: Connection, trace: bool) -> None:
    if trace:
        tracemalloc.start(FRAMES)
    trio.run(_answer, pipe)


async def _answer(pipe: Connection) -> None:
    # The peers answer no pings, and tracing makes thousands of handshakes take longer than they would be waited for.
    async with trioroom.open_server(app, port=0, settings=trioroom.Settings(ping_interval=math.inf)) as server:
        pipe.send(server.port)
        while True:
            await trio.lowlevel.wait_readable(pipe.fileno())
            pipe.recv()
            pipe.send(_look())


def _look() -> Look:
    gc.collect()
    parts: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    if tracemalloc.is_tracing():
        for statistic in tracemalloc.take_snapshot().statistics("traceback"):
            if any(frame.filename.endswith(OWN) for frame in statistic.traceback):
                continue
            parts[_part_of(statistic.traceback)] += statistic.size
            lines[_line_of(statistic.traceback)] += statistic.size
    objects = Counter(type(each).__qualname__ for each in gc.get_objects())
    return Look(os.getpid(), resident_bytes(os.getpid()), parts, lines, objects)


def _line_of(traceback: tracemalloc.Traceback) -> str:
    frame = traceback[-1]
    text = linecache.getline(frame.filename, frame.lineno).strip()
    return f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {text}"


def _place(frame: tracemalloc.Frame) -> tuple[str, int]:
    return frame.filename, frame.lineno


def _part_of(traceback: tracemalloc.Traceback) -> str:
    innermost = traceback[-1]
    if _is_coroutine(*_place(innermost)):
        return FRAMES_PART
    for frame in reversed(traceback):
        for ending, functions in PARTS.items():
            if frame.filename.endswith(ending):
                function = _function_at(*_place(frame))
                for start, part in functions.items():
                    if function.startswith(start):
                        return part
    return "other"


@cache
def _is_coroutine(file: str, line: int) -> bool:
    """Whether the line makes a coroutine, with its frame, as one that awaits or that Trio asks for the frame does."""
    text = linecache.getline(file, line)
    return "await " in text or "cr_frame" in text


@cache
def _function_at(file: str, line: int) -> str:
    """The qualified name of the function around a line, empty for none."""
    for first, last, name in _functions(file):
        if first <= line <= last:
            return name
    return ""


@cache
def _functions(file: str) -> list[tuple[int, int, str]]:
    """First and last line of each function of a file, inner ones first."""
    found: list[tuple[int, int, str]] = []

    def visit(node: ast.AST, outer: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = outer
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{outer}.{child.name}".lstrip(".")
            visit(child, name)
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                found.append((child.lineno, child.end_lineno or child.lineno, name))

    visit(ast.parse("".join(linecache.getlines(file))), "")
    return found
