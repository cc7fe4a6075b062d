"""One worker that is kept running: started again when it crashes, and told to drain when it is not wanted any more."""

from __future__ import annotations

import logging
import random
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import attrs
import trio

from trioroom._core.backoff import Backoff
from trioroom._core.exitcodes import describe_exit
from trioroom.cli.forkserver import WorkerNotStarted
from trioroom.cli.lifeline import Lifeline, open_lifeline
from trioroom.cli.processes import Process, end_process

log = logging.getLogger("trioroom.workers")

StartWorker = Callable[[socket.socket], Awaitable[Process]]
"""Starts one, with this for its standard input."""

_SLACK = 5.0  # seconds that a worker takes to end, beyond what it has told
_CONFIGURATION_ERRORS = (1, 2)  # exit codes of click's errors and of Python's uncaught ones


class NeverServed(Exception):
    """A worker has ended before it served, and another one would too; says how."""

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code


class Keeper:
    """Of the worker ``number``; whoever calls `run` owns it.

    Args:
        once: give up when it ends before it serves, whatever the cause.
        on_serving: called with the process id of each that serves.
    """

    def __init__(
        self,
        number: int,
        start: StartWorker,
        *,
        once: bool = False,
        on_serving: Callable[[int], None] = lambda pid: None,
    ) -> None:
        self.number = number
        self.pid: int | None = None
        """Of the process that serves, or was the last to do so."""
        self.ended = trio.Event()
        self._start = start
        self._once = once
        self._on_serving = on_serving
        self._retired = trio.Event()
        self._serving: Process | None = None
        self._patience = 0.0  # seconds that it may take to end; one that does not serve yet has nobody to care for

    def send_signal(self, number: signal.Signals) -> None:
        """To the worker, if it serves."""
        if self._serving is not None:
            self._serving.send_signal(number)

    def retire(self) -> None:
        """Have the worker drain and end, and start no other; one that takes longer than it may is ended."""
        self._retired.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until it is retired and its worker has ended; started when that first serves, or never will.

        Raises:
            NeverServed: it has ended before, and says why on standard error.
        """
        try:
            await self._keep(task_status)
        finally:
            self.ended.set()
        if self.pid is None:
            task_status.started()

    async def _keep(self, task_status: trio.TaskStatus[None]) -> None:
        backoff = Backoff()
        while not self._retired.is_set():
            began = trio.current_time()
            end = await self._run_worker(task_status)
            if self._retired.is_set():
                if end.code:
                    log.warning("%s when told to stop", end.happened, extra=end.fields)
                return
            if self.pid is None and (self._once or end.code in _CONFIGURATION_ERRORS):
                raise NeverServed(end.happened, end.code)
            delay = backoff.after(trio.current_time() - began, random.random())
            log.error("%s; the next one starts in %.1f s", end.happened, delay, extra=end.fields)
            with trio.move_on_after(delay):
                await self._retired.wait()
                return

    async def _run_worker(self, task_status: trio.TaskStatus[None]) -> _End:
        """One worker from its start to its end. Cancelled, it is told to stop at once, and killed in time."""
        try:
            lifeline, process = await self._begin_worker()
        except WorkerNotStarted as exc:
            return _End(f"worker {self.number} does not start: {exc}", exc.code, self.number, None)
        async with lifeline.stream:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._hear_serving, lifeline, process, task_status)
                    nursery.start_soon(self._end_when_retired, process, nursery.cancel_scope)
                    await process.wait()
                    nursery.cancel_scope.cancel()
            finally:
                self._serving = None
                await end_process(process, lifeline.stream.socket.close)
            code = await process.wait()
        cause = "a cause that the fork server took with it" if code is None else describe_exit(code)
        return _End(f"worker {self.number} (pid {process.pid}) ended by {cause}", code, self.number, process.pid)

    async def _begin_worker(self) -> tuple[Lifeline, Process]:
        """Raises `WorkerNotStarted`."""
        with ExitStack() as undo:
            try:
                lifeline, theirs = open_lifeline()
                undo.callback(lifeline.stream.socket.close)
                with theirs:
                    process = await self._start(theirs)
            except OSError as exc:  # directory or interpreter are gone, or the system is short of something
                raise WorkerNotStarted(str(exc), None) from exc
            undo.pop_all()
        return lifeline, process

    async def _hear_serving(self, lifeline: Lifeline, process: Process, task_status: trio.TaskStatus[None]) -> None:
        patience = await lifeline.wait_serving()
        if patience is None:
            return
        self._patience = patience
        first, self.pid = self.pid is None, process.pid
        self._serving = process
        self._on_serving(process.pid)
        fields = {"worker": self.number, "pid": self.pid}
        log.log(
            logging.DEBUG if first else logging.INFO, "worker %(worker)d serves (pid %(pid)d)", fields, extra=fields
        )
        if first:
            task_status.started()

    async def _end_when_retired(self, process: Process, waiting: trio.CancelScope) -> None:
        await self._retired.wait()
        process.terminate()
        began = trio.current_time()
        await trio.sleep(self._patience + _SLACK)
        fields = {"worker": self.number, "pid": process.pid, "seconds": trio.current_time() - began}
        log.error(
            "worker %(worker)d (pid %(pid)d) has not ended within %(seconds).0f s; it has to now", fields, extra=fields
        )
        waiting.cancel()


@attrs.frozen
class _End:
    """Of one worker, or of the attempt to start it."""

    happened: str
    code: int | None
    worker: int
    pid: int | None

    @property
    def fields(self) -> dict[str, object]:
        """For a record on it."""
        return {"worker": self.worker, "pid": self.pid, "exit_code": self.code}
