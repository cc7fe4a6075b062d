"""SIGUSR1: what this process is doing, while it goes on.

Mostly that is the tree of its tasks, which the event loop writes when the signal's turn comes. When that does not come
within a second, something blocks the loop, and a thread that the signal has started tells what: the stacks of Python.
So one signal is answered by what is worth seeing, and by no more than that.
"""

from __future__ import annotations

import io
import logging
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from types import FrameType

import trio

from trioroom.cli.logs import tell
from trioroom.debug import dump_tasks

log = logging.getLogger("trioroom.tasks")
log.setLevel(logging.INFO)  # whatever --log-level says: it was asked for

DUMP_SIGNAL = signal.SIGUSR1
_ANSWER_TIMEOUT = 1.0  # seconds; a loop that is well takes some hundredths
_MAX_THREADS = 20


def ignore_dump_signal() -> None:
    """Until `open_dumps`, and in the fork server, it would end the process; one may send it to all there are."""
    if signal.getsignal(DUMP_SIGNAL) is signal.SIG_DFL:
        signal.signal(DUMP_SIGNAL, signal.SIG_IGN)


@asynccontextmanager
async def open_dumps(pass_on: Callable[[], None] | None = None) -> AsyncIterator[None]:
    """Answer the signal while the context is open, unless the application has a handler of its own for it.

    Args:
        pass_on: tells others to do so too.
    """
    before = signal.getsignal(DUMP_SIGNAL)
    if before not in (signal.SIG_DFL, signal.SIG_IGN):
        yield
        return
    dumps = _Dumps(trio.lowlevel.current_trio_token(), pass_on)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dumps.run, name="dumps")
        signal.signal(DUMP_SIGNAL, dumps.heed)
        try:
            yield
        finally:
            signal.signal(DUMP_SIGNAL, before)
            dumps.answer()
        nursery.cancel_scope.cancel()


class _Dumps:
    """What is to be written, and who watches that it is."""

    def __init__(self, token: trio.lowlevel.TrioToken, pass_on: Callable[[], None] | None) -> None:
        self._token = token
        self._pass_on = pass_on
        self._asked = trio.Event()
        self._unanswered: deque[threading.Event] = deque()  # one at most: set when the loop turns

    def heed(self, number: int, frame: FrameType | None) -> None:
        """The handler: runs between any two steps of the main thread, so it takes no lock that this may hold."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._ask, idempotent=True)
        if not self._unanswered:  # else someone watches already
            answered = threading.Event()
            self._unanswered.append(answered)
            threading.Thread(target=_watch, args=(answered,), name="trioroom dumps", daemon=True).start()

    def _ask(self) -> None:
        self.answer()
        self._asked.set()

    def answer(self) -> None:
        """The loop turns."""
        while self._unanswered:
            self._unanswered.popleft().set()

    async def run(self) -> None:
        """Write the tree whenever it is asked for, until cancelled; what is asked for meanwhile is one more."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            if self._pass_on is not None:
                self._pass_on()
            file = io.StringIO()
            await dump_tasks(file)
            summary, _, tree = file.getvalue().rstrip("\n").partition("\n")
            tell(log, summary, tree, "tree")


def _watch(answered: threading.Event) -> None:
    if not answered.wait(_ANSWER_TIMEOUT):
        message = f"the event loop has not answered for {_ANSWER_TIMEOUT:g} s; this is where it is"
        tell(log, message, "\n".join(_stacks()), "stacks")


def _stacks() -> Iterator[str]:
    """Of all threads, the main one first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main, own = threading.main_thread().ident, threading.get_ident()
    others = sorted(sys._current_frames().items(), key=lambda each: each[0] != main)
    for ident, frame in [each for each in others if each[0] != own][:_MAX_THREADS]:
        yield f"thread {names.get(ident, ident)}:"
        yield "".join(traceback.format_stack(frame)).rstrip("\n")
