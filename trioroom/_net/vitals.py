"""How the process of a server does: what holds up its event loop, and what it uses of the machine."""

from __future__ import annotations

import gc
import math
import os
import resource
import time
from pathlib import Path
from time import perf_counter

import attrs
import trio

from trioroom._core.histogram import SECONDS, Histogram, Peak

_LAG_INTERVAL = 0.25  # seconds between two looks: a stall of a tenth of a second is seen two times of five
_VIRTUAL_INTERVAL = (
    60.0  # the same on a clock that passes minutes at once, as those of tests do: there is nothing to see
)
_FAST_LOOKS = 8  # in a row that took less than half of their time: then it is such a clock
_LAG_WINDOW = 60.0  # seconds for which the longest stall is remembered, more than between two scrapes
_RECENT_WINDOW = 2.0  # and for who looks each second
_GENERATIONS = 3
_FILES = "/proc/self/fd"
_PAGES = Path("/proc/self/statm")
_STATUS = Path("/proc/self/stat")
_START_FIELD = 19  # of those behind the name in proc_pid_stat(5), from 0


class Vitals:
    """Of one server's process; `run` is a task of the server's nursery."""

    def __init__(self) -> None:
        self.loop_lag = Histogram(SECONDS)
        """How late the event loop has come back to a task whose time it was."""
        self.gc_pauses = tuple(Histogram(SECONDS) for _ in range(_GENERATIONS))
        """How long collections took, by generation; all stands still meanwhile."""
        self._longest_lag = Peak(_LAG_WINDOW)
        self._recent_lag = Peak(_RECENT_WINDOW)
        self._collecting_since = 0.0

    @property
    def tasks(self) -> int:
        """How many tasks the event loop has, those of the application and of Trio itself too."""
        return trio.lowlevel.current_statistics().tasks_living

    @property
    def longest_loop_lag(self) -> float:
        """Of the last minute, or two."""
        return self._longest_lag.value(trio.current_time())

    @property
    def recent_loop_lag(self) -> float:
        """The longest of the last few seconds."""
        return self._recent_lag.value(trio.current_time())

    async def run(self) -> None:
        """Watch until cancelled."""
        gc.callbacks.append(self._on_collection)
        try:
            fast_looks = 0
            while True:
                interval = _LAG_INTERVAL if fast_looks < _FAST_LOOKS else _VIRTUAL_INTERVAL
                began, due = perf_counter(), trio.current_time() + interval
                await trio.sleep_until(due)
                now = trio.current_time()
                fast_looks = fast_looks + 1 if perf_counter() - began < interval / 2 else 0
                late = max(0.0, now - due)
                self.loop_lag.observe(late)
                self._longest_lag.note(late, now)
                self._recent_lag.note(late, now)
        finally:
            gc.callbacks.remove(self._on_collection)

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting_since = perf_counter()
        else:
            self.gc_pauses[info["generation"]].observe(perf_counter() - self._collecting_since)


@attrs.frozen
class ProcessFigures:
    """What this process uses; None is what the system does not tell."""

    cpu_seconds: float
    max_open_files: float
    resident_bytes: int | None
    open_files: int | None
    started_at: float | None
    """In seconds since 1970."""


async def read_process_figures() -> ProcessFigures:
    """Those of now."""
    max_open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ProcessFigures(
        time.process_time(),
        math.inf if max_open_files == resource.RLIM_INFINITY else max_open_files,
        _resident_bytes(),
        await _count_open_files(),
        _started_at(),
    )


async def _count_open_files() -> int | None:
    try:
        if size := os.stat(_FILES).st_size:
            return size
        # Linux before 6.2: listing a million of them takes a second, which the event loop does not have.
        return await trio.to_thread.run_sync(lambda: len(os.listdir(_FILES)) - 1)
    except OSError:
        return None


def _resident_bytes() -> int | None:
    try:
        return int(_PAGES.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return None


def _started_at() -> float | None:
    try:
        fields = _STATUS.read_text().rpartition(")")[2].split()
    except OSError:
        return None
    since_boot = int(fields[_START_FIELD]) / os.sysconf("SC_CLK_TCK")
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)
