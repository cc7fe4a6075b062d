"""A node: ``trioroom serve`` in a process of its own, and what may befall it."""

from __future__ import annotations

import json
import math
import re
import resource
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from tests.backplane.processes import POLL_INTERVAL, ServerProcess
from tests.benchmarks.processes import open_files, resident_bytes
from tests.benchmarks.soak.watch import API_KEY
from tests.faults.records import NOT_STARTED, Life, read_hooks
from tests.faults.rooms import CLOCK, JOURNAL
from tests.faults.waiting import comes_true

DRAIN_TIMEOUT: Final = 4.0
END_TIMEOUT: Final = 40.0
"""Seconds from SIGTERM to the end: twice the node's own deadlines together and more, for a busy machine."""
START_TIMEOUT: Final = 90.0
"""Seconds until it serves, with a broker that is there at last, on a machine with much else to do."""
_RESTART_DELAY: Final = 0.3
WARM_AFTER: Final = 10.0
"""Seconds of service after which memory should not grow any more."""
SETTINGS: Final = (
    "ping_interval=6",
    "ping_timeout=4",
    "write_timeout=4",
    "close_timeout=2",
    "leave_timeout=2",
    f"drain_timeout={DRAIN_TIMEOUT:g}",
    "tcp_user_timeout=8",
    "publish_timeout=4",
)
"""Deadlines short enough for a run of half a minute to see their end."""
_REPOSITORY: Final = Path(__file__).parents[2]
_COUNTED: Final = re.compile(r'"message":"([\d,]+) tasks, counted')
_ANSWER_TIMEOUT: Final = 15.0
_NO_BROKER: Final = re.compile(r"cannot use the \w+ backplane")
_SERVES: Final = "trioroom serves "
_WORST: Final = ("error", "critical")
_BOX: Final = " |+-"
"""What the traceback of an exception group is drawn with."""


class Node(ServerProcess):
    """Not started yet when it is made."""

    def __init__(self, number: int, directory: Path, port: int, backplane: str) -> None:
        super().__init__(directory, port)
        self.number = number
        self.lives: list[Life] = []
        self.warm = 0
        """Bytes that were resident after `WARM_AFTER` seconds of this life."""
        self._backplane = backplane
        self._log_read = 0
        self._began = 0.0
        self._is_to_live = False

    @property
    def pid(self) -> int:
        """Of the process there is, or was."""
        return self._process.pid

    @property
    def journal(self) -> Path:
        """Of this life."""
        return self._directory / f"hooks-{len(self.lives)}.jsonl"

    def command_line(self) -> Sequence[str]:
        """``env`` comes first: what starts processes here hands on its own environment."""
        variables = {
            "PYTHONPATH": str(_REPOSITORY),
            "TRIOROOM_API_KEY": API_KEY,
            JOURNAL: str(self.journal),
            CLOCK: str(self._directory / "clock"),
        }
        environment = [f"{name}={value}" for name, value in variables.items()]
        settings = [f"--set={setting}" for setting in SETTINGS]
        serve = [sys.executable, "-m", "trioroom", "serve", "tests.faults.rooms:app", "--log-format=json"]
        return ["env", *environment, *serve, f"--port={self.port}", f"--backplane={self._backplane}", *settings]

    async def answers(self) -> bool:
        """Whether it has said in this life that it serves: on its port something else may listen for a moment."""
        await trio.lowlevel.checkpoint()
        return _SERVES in self._log_of_life()

    async def wait_ready(self) -> None:
        """Until it serves or has ended; it may take its time on a busy machine."""

        async def answers_or_has_ended() -> bool:
            return not self.alive or await self.answers()

        await comes_true(answers_or_has_ended, START_TIMEOUT, POLL_INTERVAL)

    async def start(self) -> None:
        """As a service manager does: again, while it ends at once because it cannot reach the broker.

        Raises:
            trio.TooSlowError: it does not come up.
        """
        with trio.fail_after(START_TIMEOUT):
            while True:
                self.warm = 0
                self._began = trio.current_time()
                self._start()
                await self.wait_ready()
                if self.alive:
                    self._is_to_live = True
                    return
                self._bury(NOT_STARTED if _NO_BROKER.search(self._log_of_life()) else self._ended_by_itself())
                self.lives[-1].errors = [error for error in self.lives[-1].errors if not _NO_BROKER.search(error)]
                await trio.sleep(_RESTART_DELAY)

    async def raise_from_the_dead(self) -> str | None:
        """If it has ended by itself, say how, and start it again."""
        if self.alive or not self._is_to_live:
            return None
        self._bury(self._ended_by_itself())
        await self.start()
        return f"node {self.number} has ended by itself"

    def look(self) -> None:
        """See what it uses when it is warm."""
        if self._is_to_live and not self.warm and self.alive and trio.current_time() > self._began + WARM_AFTER:
            self.warm = resident_bytes(self.pid)

    def resident(self) -> int:
        """Bytes."""
        return resident_bytes(self.pid) if self.alive else 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Started at the beginning, killed in the end, whatever has befallen it meanwhile."""
        try:
            await self.start()
            yield
        finally:
            self.kill()

    # -- what befalls it ----------------------------------------------------------------------------

    def die(self) -> None:
        """By SIGKILL."""
        was_alive = self.alive
        self.kill()
        self._bury("killed" if was_alive else self._ended_by_itself())

    async def drain(self) -> None:
        """By SIGTERM; it is dead when this returns."""
        self._is_to_live = False
        self._process.send_signal(signal.SIGTERM)
        if await comes_true(self._has_ended, END_TIMEOUT, POLL_INTERVAL):
            self._bury(f"exit {self._process.returncode}")
        else:
            await self.count_tasks()  # for the log
            self.kill()
            self._bury(f"has not ended {END_TIMEOUT:g} s after SIGTERM")

    async def _has_ended(self) -> bool:
        return not self.alive

    async def count_tasks(self) -> float:
        """Have it log the tree of its tasks, and say how many it has; infinitely many if it does not answer."""
        told = len(_COUNTED.findall(self.log))
        if self.alive:
            self._process.send_signal(signal.SIGUSR1)

        async def is_told() -> bool:
            return len(_COUNTED.findall(self.log)) > told

        answers = await comes_true(is_told, _ANSWER_TIMEOUT, POLL_INTERVAL)
        return float(_COUNTED.findall(self.log)[-1].replace(",", "")) if answers else math.inf

    def set_clock(self, offset: float) -> None:
        """Its wall clock is off by so many seconds, until it is told another number."""
        if self.alive:
            written = self._directory / "clock.new"
            written.write_text(str(offset))
            written.rename(self._directory / "clock")  # in one piece: an earlier signal may have it read right now
            self._process.send_signal(signal.SIGUSR2)

    def allow_files(self, more: int | None) -> None:
        """It may open so many more than it has open now; None is as many as it likes."""
        if self.alive:
            _, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
            soft = hard if more is None else open_files(self.pid) + more
            resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (soft, hard))

    def _bury(self, ended: str) -> None:
        """Keep what it has written."""
        self._is_to_live = False
        life = Life(self.number, len(self.lives), ended, read_hooks(self.journal))
        life.errors += errors_of(self._log_of_life())
        self._log_read = (self._directory / "log").stat().st_size
        self.lives.append(life)

    def _log_of_life(self) -> str:
        with (self._directory / "log").open("rb") as log:
            log.seek(self._log_read)
            return log.read().decode(errors="replace")

    def _ended_by_itself(self) -> str:
        return f"exit {self._process.returncode} by itself"


def errors_of(log: str) -> Iterator[str]:
    """What should not be in a log: errors, and whatever is no record, such as a traceback of the interpreter."""
    for line in log.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            yield line
            continue
        if record["level"] in _WORST or "exception" in record:
            lines = [line.strip(_BOX) for line in record.get("exception", "").splitlines()]
            last = next(filter(None, reversed(lines)), "")
            yield f"{record['logger']}: {record['message']}{': ' if last else ''}{last}"
